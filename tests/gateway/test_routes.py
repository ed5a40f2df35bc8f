"""Routes come from the contracts, and every address has one answer."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from google.api import http_pb2
from kente.options.v1 import options_pb2

from gateway.contracts import Rpc, find_message, load_rpcs
from gateway.openapi import openapi_path
from gateway.problems import Refusal
from gateway.routes import RouteTable


def rpc(name: str, *rules: http_pb2.HttpRule, streaming: bool = False) -> Rpc:
    """An RPC with routes of the test's own."""
    request = find_message("kente.payments.v1.CreateRefundRequest")
    response = find_message("kente.payments.v1.CreateRefundResponse")
    assert request is not None
    assert response is not None
    return Rpc("payments", "test.Service", name, request, response, streaming, options_pb2.RpcPolicy(), rules)


@pytest.fixture(scope="module")
def table() -> RouteTable:
    return RouteTable(load_rpcs())


def test_every_public_rpc_has_a_route_and_no_internal_one_has(table: RouteTable) -> None:
    routed = {route.rpc.full_name for route in table.routes}
    internal = {rpc.full_name for rpc in load_rpcs() if rpc.policy.audience == options_pb2.AUDIENCE_INTERNAL}

    assert routed == {rpc.full_name for rpc in load_rpcs()} - internal
    assert "kente.identity.v1.TokenService.ExchangeApiKey" in internal


@pytest.mark.parametrize(
    ("verb", "path", "name", "values"),
    [
        ("POST", "/v1/payments", "CreatePayment", {}),
        ("GET", "/v1/payments/pay_1", "GetPayment", {"payment_id": "pay_1"}),
        ("POST", "/v1/payments/pay_1:capture", "CapturePayment", {"payment_id": "pay_1"}),
        ("POST", "/v1/payments/pay_1%3Acapture", "CapturePayment", {"payment_id": "pay_1"}),
        ("GET", "/v1/payments/pay_1:watch", "WatchPayment", {"payment_id": "pay_1"}),
        ("GET", "/v1/payments/p/refunds/r", "GetRefund", {"payment_id": "p", "refund_id": "r"}),
        ("GET", "/v1/ledger/accounts/assets:cash:ghs", "GetAccount", {"account_name": "assets:cash:ghs"}),
        ("PATCH", "/v1/ledger/accounts/assets:cash:ghs", "UpdateAccount", {"account_name": "assets:cash:ghs"}),
        ("POST", "/v1/ledger/accounts:batchCreate", "BatchCreateAccounts", {}),
        ("POST", "/v1/ledger/accounts/assets:cash/freeze", "FreezeAccount", {"account_name": "assets:cash"}),
        ("POST", "/v1/ledger/accounts/assets:cash/open", "OpenAccount", {"account_name": "assets:cash"}),
        ("POST", "/v1/ledger/accounts/assets%3Acash/close", "CloseAccount", {"account_name": "assets:cash"}),
        ("GET", "/v1/ledger/accounts/a:b/balance", "GetBalance", {"account_name": "a:b"}),
        ("GET", "/v1/ledger/accounts/a:b/statement", "GetStatement", {"account_name": "a:b"}),
        ("POST", "/v1/ledger/transactions/t:post", "PostHold", {"hold_transaction_id": "t"}),
        ("POST", "/v1/ledger/transactions/t:void", "VoidHold", {"hold_transaction_id": "t"}),
        ("POST", "/v1/ledger/transactions/t:reverse", "ReverseTransaction", {"reversed_transaction_id": "t"}),
        ("GET", "/v1/ledger/entries:watch", "WatchEntries", {}),
        ("GET", "/v1/ledger/books/main", "GetBook", {"book_name": "main"}),
        ("POST", "/v1/ledger/books/main:closePeriod", "ClosePeriod", {"book_name": "main"}),
        ("GET", "/v1/ledger/accounts/a%2Fb%20c%C3%A9", "GetAccount", {"account_name": "a/b cé"}),
        ("GET", "/.well-known/jwks.json", "GetKeySet", {}),
    ],
)
def test_an_address_finds_its_rpc(
    table: RouteTable, verb: str, path: str, name: str, values: Mapping[str, str]
) -> None:
    match = table.find(verb, path)

    assert (match.route.rpc.name, match.values) == (name, values)


@pytest.mark.parametrize(
    ("verb", "path", "status", "allow"),
    [
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/v1/payments/", 404, None),
        ("GET", "/v1/payments/a/b/c/d", 404, None),
        ("POST", "/kente.payments.v1.PaymentService/CreatePayment", 404, None),
        ("PUT", "/v1/payments", 405, "GET, POST"),
        ("POST", "/v1/payments/pay_1:watch", 405, "GET"),
        ("PUT", "/v1/ledger/accounts/a:b", 405, "GET, PATCH"),
        ("GET", "/v1/ledger/accounts/a:b/freeze", 405, "POST"),
        ("BREW", "/v1/payments/pay_1", 405, "GET"),
        ("GET", "/v1/payments/%zz", 400, None),
        ("GET", "/v1/payments/%", 400, None),
        ("GET", "/v1/payments/%ff", 400, None),
        ("GET", "/v1/payments/é", 400, None),
    ],
)
def test_an_address_without_an_rpc_is_refused(
    table: RouteTable, verb: str, path: str, status: int, allow: str | None
) -> None:
    with pytest.raises(Refusal) as refused:
        table.find(verb, path)

    assert (refused.value.status, refused.value.headers.get("allow")) == (status, allow)


def test_templates_may_span_segments_and_nest_fields() -> None:
    table = RouteTable(
        [
            rpc("Deep", http_pb2.HttpRule(get="/v1/{payment_id=files/**}")),
            rpc("Nested", http_pb2.HttpRule(get="/v1/amounts/{amount.currency}/all")),
            rpc("Shelf", http_pb2.HttpRule(get="/v1/{payment_id=shelves/*/books/*}:read")),
        ]
    )

    assert table.find("GET", "/v1/files/a/b%2Fc").values == {"payment_id": "files/a/b%2Fc"}
    assert table.find("GET", "/v1/amounts/GHS/all").values == {"amount.currency": "GHS"}
    assert table.find("GET", "/v1/shelves/1/books/2:read").values == {"payment_id": "shelves/1/books/2"}
    assert openapi_path("/v1/{payment_id=files/**}") == "/v1/{payment_id}"


def test_a_literal_goes_before_a_variable_whatever_the_order() -> None:
    variable = rpc("Variable", http_pb2.HttpRule(get="/v1/things/{payment_id}"))
    literal = rpc("Literal", http_pb2.HttpRule(get="/v1/things/newest"))

    for rpcs in ([variable, literal], [literal, variable]):
        assert RouteTable(rpcs).find("GET", "/v1/things/newest").route.rpc.name == "Literal"
        assert RouteTable(rpcs).find("GET", "/v1/things/oldest").route.rpc.name == "Variable"


def test_additional_bindings_and_custom_verbs_are_routes_too() -> None:
    extra = http_pb2.HttpRule(custom=http_pb2.CustomHttpPattern(kind="PATCH", path="/v2/things"))
    table = RouteTable([rpc("Both", http_pb2.HttpRule(post="/v1/things"), extra)])

    assert table.find("POST", "/v1/things").route.rpc.name == "Both"
    assert table.find("PATCH", "/v2/things").route.rpc.name == "Both"


def test_contracts_that_cannot_be_served_stop_the_start() -> None:
    same = http_pb2.HttpRule(get="/v1/things/{payment_id}")
    other_name = http_pb2.HttpRule(get="/v1/things/{description}")

    with pytest.raises(ValueError, match=r"test\.Service\.B and test\.Service\.A both have GET"):
        RouteTable([rpc("A", same), rpc("B", other_name)])
    with pytest.raises(ValueError, match="is not a path template"):
        RouteTable([rpc("Broken", http_pb2.HttpRule(get="/v1/{things"))])
    with pytest.raises(ValueError, match="its route must be a GET"):
        RouteTable([rpc("Stream", http_pb2.HttpRule(post="/v1/things"), streaming=True)])
    with pytest.raises(ValueError, match="names no path"):
        RouteTable([rpc("Empty", http_pb2.HttpRule())])
