"""The documents say what the gateway does, for every public RPC."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from typing import Any

import httpx
import pytest
from kente.options.v1 import options_pb2
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.contracts import find_message, load_files, load_rpcs
from gateway.docs import render_page
from gateway.openapi import openapi_document
from gateway.routes import RouteTable
from gateway.transcode import Transcoder

PUBLIC = [rpc for rpc in load_rpcs() if rpc.bindings]
COMMENTS = {
    "kente.payments.v1.PaymentService": "Payments and their refunds.",
    "kente.payments.v1.PaymentService.CreatePayment": "Takes a payment. By routing.\n\nErrors: NO_ROUTE.",
    "kente.common.v1.Money": "An amount of one currency.",
    "kente.common.v1.Money.currency": 'ISO 4217 code such as "GHS".',
    "kente.payments.v1.Payment.State": "Where a payment is.",
    "kente.payments.v1.Payment.STATE_CREATED": "Saved <b>only</b>.",
    "kente.common.v1.ERROR_REASON_NO_ROUTE": "Nothing can carry it.",
}


@cache
def document() -> dict[str, Any]:
    """The document with a few comments."""
    return openapi_document(RouteTable(load_rpcs()).routes, COMMENTS, "https://api.example.com")


def schema(name: str) -> dict[str, Any]:
    """One schema of the document."""
    found: dict[str, Any] = document()["components"]["schemas"][name]
    return found


def operation(verb: str, path: str) -> dict[str, Any]:
    """One operation of the document."""
    found: dict[str, Any] = document()["paths"][path][verb]
    return found


def operations() -> list[dict[str, Any]]:
    """All operations of the document."""
    return [found for item in document()["paths"].values() for found in item.values()]


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(document()).validate()


def test_every_public_rpc_is_in_the_document_and_no_internal_one() -> None:
    assert {found["x-rpc"] for found in operations()} == {rpc.full_name for rpc in PUBLIC}
    assert len({found["operationId"] for found in operations()}) == len(operations())
    assert "ExchangeApiKey" not in json.dumps(document())


def test_an_operation_says_who_may_call_and_how() -> None:
    create = operation("post", "/v1/payments")
    token = operation("post", "/v1/oauth/token")

    assert create["x-permission"] == "payments:write"
    assert create["security"] == [{"Bearer": []}, {"ApiKey": []}, {"OAuth2": ["payments:write"]}]
    assert create["x-idempotency"] == "request_id"
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in create["parameters"]
    assert token["security"] == []
    assert "application/x-www-form-urlencoded" in token["requestBody"]["content"]
    flow = document()["components"]["securitySchemes"]["OAuth2"]["flows"]["clientCredentials"]
    assert flow["tokenUrl"] == "/v1/oauth/token"
    assert set(flow["scopes"]) == {rpc.policy.permission for rpc in PUBLIC} - {""}


def test_comments_become_descriptions() -> None:
    create = operation("post", "/v1/payments")

    assert (create["summary"], "Errors: NO_ROUTE." in create["description"]) == ("Takes a payment", True)
    assert schema("common.v1.Money")["description"] == "An amount of one currency."
    assert "- `STATE_CREATED`: Saved <b>only</b>." in schema("payments.v1.Payment.State")["description"]
    assert (
        "- `NO_ROUTE`: Nothing can carry it. Create a connection"
        in schema("Problem")["properties"]["reason"]["description"]
    )


def test_rules_become_constraints() -> None:
    request = schema("payments.v1.CreatePaymentRequest")
    fields = request["properties"]

    assert request["required"] == ["amount", "method"]
    assert request["additionalProperties"] is False
    assert (fields["requestId"]["format"], fields["description"]["maxLength"]) == ("uuid", 140)
    assert "must be more than zero minor units" in fields["amount"]["description"]
    # A field that may be left empty takes the empty text too.
    assert fields["connectionId"]["pattern"] == "^$|^con_[0-9a-z]{26}$"
    assert schema("payments.v1.PaymentMethod")["oneOf"] == [{"required": ["mobileMoney"]}, {"required": ["card"]}]
    assert schema("payments.v1.Payer")["properties"]["email"]["format"] == "email"
    assert schema("payments.v1.Card")["properties"]["token"]["minLength"] == 1
    legs = schema("ledger.v1.CreateTransactionRequest")["properties"]["legs"]
    assert (legs["minItems"], legs["maxItems"]) == (2, 100)
    side = schema("ledger.v1.Leg")["properties"]["side"]
    assert side["not"] == {"enum": ["SIDE_UNSPECIFIED"]}
    scopes = schema("identity.v1.CreateApiKeyRequest")["properties"]["scopes"]
    assert (scopes["uniqueItems"], scopes["items"]["pattern"]) == (True, "^[a-z][a-z-]{1,39}:[a-z]{2,20}$")
    assert schema("identity.v1.IssueTokenRequest")["properties"]["grant_type"]["const"] == "client_credentials"
    assert (
        "Must be in the future." in schema("identity.v1.CreateApiKeyRequest")["properties"]["expireTime"]["description"]
    )
    page_size = {parameter.get("name"): parameter for parameter in operation("get", "/v1/payments")["parameters"]}
    assert page_size["pageSize"]["schema"]["minimum"] == 0


def test_what_the_path_holds_is_not_in_the_body_again() -> None:
    capture = operation("post", "/v1/payments/{payment_id}:capture")

    assert capture["parameters"][0]["name"] == "payment_id"
    assert capture["parameters"][0]["schema"]["pattern"] == "^pay_[0-9a-z]{26}$"
    assert "paymentId" not in schema("payments.v1.CapturePaymentRequest")["properties"]


def test_maps_and_lists_of_objects_have_a_form_in_a_query() -> None:
    entries = {parameter.get("name"): parameter for parameter in operation("get", "/v1/ledger/entries")["parameters"]}
    report = operation("get", "/v1/ledger/reports/trial-balance")["parameters"]
    (rates,) = [parameter for parameter in report if parameter.get("name") == "rates"]

    assert (entries["metadata"]["style"], entries["metadata"]["explode"]) == ("deepObject", True)
    assert entries["metadata"]["schema"]["additionalProperties"]["type"] == "string"
    listed = rates["content"]["application/json"]["schema"]
    assert (listed["maxItems"], listed["items"]) == (200, {"$ref": "#/components/schemas/ledger.v1.Rate"})
    assert "schema" not in rates


def test_rules_of_a_map_are_those_of_its_names_and_values() -> None:
    metadata = schema("ledger.v1.CreateAccountRequest")["properties"]["metadata"]

    assert metadata["maxProperties"] == 32
    assert metadata["propertyNames"] == {"pattern": "^[a-z0-9_.-]{1,64}$"}
    assert metadata["additionalProperties"]["maxLength"] == 256


def test_fields_that_may_be_absent_are_not_required() -> None:
    create = schema("ledger.v1.CreateAccountRequest")
    update = schema("ledger.v1.UpdateAccountRequest")

    assert create["required"] == ["accountName", "type", "currency"]
    assert (create["properties"]["scale"]["minimum"], create["properties"]["scale"]["maximum"]) == (0, 18)
    assert "required" not in schema("ledger.v1.AccountLimits")
    assert update["required"] == ["updateMask"]
    assert update["properties"]["updateMask"]["examples"] == ["displayName"]


def test_a_stream_is_told_as_server_sent_events() -> None:
    watch = operation("get", "/v1/payments/{payment_id}:watch")

    assert list(watch["responses"]["200"]["content"]) == ["text/event-stream"]
    assert watch["x-streaming"] == "server-sent events"


@pytest.mark.parametrize("rpc", [rpc for rpc in PUBLIC if rpc.bindings[0].body], ids=lambda rpc: rpc.full_name)
def test_the_example_of_a_body_fits_its_schema_and_its_message(rpc: Any) -> None:
    (found,) = [entry for entry in operations() if entry["x-rpc"] == rpc.full_name]
    example = found["requestBody"]["content"]["application/json"]["example"]
    reference = found["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    descriptor = find_message(rpc.request.full_name)
    assert descriptor is not None

    resolvable = {"$ref": reference, "components": document()["components"]}
    OAS31Validator(resolvable).validate(example)
    Transcoder(load_files()).encode(descriptor, example)


async def test_the_documents_are_served(client: httpx.AsyncClient) -> None:
    served = await client.get("/openapi.json")
    page = await client.get("/docs")

    OpenAPIV31SpecValidator(served.json()).validate()
    assert served.headers["content-type"] == "application/json"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for rpc in PUBLIC:
        assert rpc.full_name in page.text


def test_the_page_needs_no_other_server() -> None:
    page = render_page(document())

    assert re.findall(r"""(?:src|href)=["'](?!#|/openapi\.json)""", page) == []
    assert "@import" not in page
    assert "url(" not in page
    # What comments hold is text.
    assert "<b>only</b>" not in page
    assert "&lt;b&gt;only&lt;/b&gt;" in page


def test_every_operation_has_a_curl_line_that_a_shell_can_read() -> None:
    page = render_page(document())
    lines = re.findall(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)

    assert len(lines) == len(operations())
    for line in lines:
        command = line.replace("&#34;", '"').replace("&#39;", "'").replace("&amp;", "&").replace("\\\n", " ")
        words = shlex.split(command)
        assert words[0] == "curl"
        assert any(word.startswith("https://api.example.com/") for word in words)
        assert "{" not in next(word for word in words if word.startswith("https://"))


def test_the_options_of_the_contracts_have_names_here() -> None:
    idempotencies = {options_pb2.Idempotency.Name(rpc.policy.idempotency) for rpc in PUBLIC}

    assert {found["x-idempotency"] for found in operations()} == {
        name.removeprefix("IDEMPOTENCY_").lower() for name in idempotencies
    }
