"""Kinds of fields that the ledger's routes brought: masks, maps, absent numbers, and lists of objects in a query."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.gateway.far_end import FarEnd
from tests.gateway.partner import KEY, SIGNED, WRITE, violations

BANK = "/v1/ledger/accounts/assets:bank:ghs"


async def test_a_patch_names_the_fields_it_changes_as_json_does(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    body = {"updateMask": "displayName,limits", "displayName": "Till", "limits": {"minBalanceMinor": "0"}}

    response = await client.patch(BANK, headers=WRITE, json=body)

    assert response.status_code == 200, response.text
    request = far_end.last("UpdateAccount").request
    assert (request.request_id, request.account_name) == (KEY, "assets:bank:ghs")
    assert list(request.update_mask.paths) == ["display_name", "limits"]
    # Zero is a limit, and what is absent is none.
    assert request.limits.HasField("min_balance_minor")
    assert not request.limits.HasField("max_balance_minor")


@pytest.mark.parametrize("mask", ["display_name", ["displayName"], {"paths": ["displayName"]}, "displayName,", 7])
async def test_a_mask_of_another_form_is_refused(client: httpx.AsyncClient, far_end: FarEnd, mask: object) -> None:
    response = await client.patch(BANK, headers=WRITE, json={"updateMask": mask, "displayName": "Till"})

    assert (response.status_code, response.json()["reason"]) == (400, "BODY_MALFORMED")
    assert "lowerCamelCase" in violations(response)["update_mask"]
    assert far_end.calls("UpdateAccount") == []


async def test_a_patch_is_a_write_and_needs_its_key(client: httpx.AsyncClient) -> None:
    response = await client.patch(BANK, headers=SIGNED, json={"updateMask": "displayName"})

    assert (response.status_code, response.json()["reason"]) == (400, "FIELD_INVALID")
    assert list(violations(response)) == ["request_id"]


@pytest.mark.parametrize("verb", ["freeze", "open", "close"])
async def test_a_state_is_changed_without_a_body(client: httpx.AsyncClient, far_end: FarEnd, verb: str) -> None:
    plain = await client.post(f"{BANK}/{verb}", headers=WRITE)
    other_book = await client.post(f"{BANK}/{verb}", headers=WRITE, json={"bookName": "branch"})

    assert (plain.status_code, other_book.status_code) == (200, 200)
    first, second = (seen.request for seen in far_end.calls(f"{verb.capitalize()}Account"))
    assert (first.account_name, first.book_name, second.book_name) == ("assets:bank:ghs", "", "branch")


async def test_accounts_are_created_together(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    gold = {"accountName": "assets:gold", "type": "TYPE_ASSET", "currency": "GOLDGRAMS", "scale": 0}
    cash = {"accountName": "assets:cash", "type": "TYPE_ASSET", "currency": "GHS", "metadata": {"a.b-c": "d"}}

    response = await client.post("/v1/ledger/accounts:batchCreate", headers=WRITE, json={"accounts": [gold, cash]})

    assert response.status_code == 200, response.text
    first, second = far_end.last("BatchCreateAccounts").request.accounts
    assert (first.HasField("scale"), first.scale, second.HasField("scale")) == (True, 0, False)
    assert dict(second.metadata) == {"a.b-c": "d"}


async def test_a_fault_inside_a_batch_is_told_with_its_place(client: httpx.AsyncClient) -> None:
    accounts = [{"metadata": {"a": "b"}}, {"metadata": {"a": 1}, "scale": "two"}]

    response = await client.post("/v1/ledger/accounts:batchCreate", headers=WRITE, json={"accounts": accounts})

    assert set(violations(response)) == {"accounts[1].metadata[a]", "accounts[1].scale"}


async def test_a_query_fills_a_map_by_its_entries(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    query = {"metadata[order]": "o-1", "metadata[a.b-c]": "x=y&z", "accountName": "assets:bank:ghs"}

    response = await client.get("/v1/ledger/entries", headers=SIGNED, params=query)

    assert response.status_code == 200, response.text
    request = far_end.last("ListEntries").request
    assert dict(request.metadata) == {"order": "o-1", "a.b-c": "x=y&z"}
    assert request.account_name == "assets:bank:ghs"


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("metadata=x", "metadata", "metadata[name]=value"),
        ("metadata.order=x", "metadata.order", "is not a field of this operation"),
        ("metadata[order]=1&metadata[order]=2", "metadata[order]", "is given twice"),
        ("metadata[%00]=1", "metadata", "U+0000"),
        ("accountName[x]=1", "accountName[x]", "is not a field of this operation"),
        ("colour[X y]=1", "(not a name)", "is not a field of this operation"),
        ("colour[x]=1", "colour[x]", "is not a field of this operation"),
    ],
)
async def test_a_map_in_a_query_that_does_not_fit_is_told_by_field(
    client: httpx.AsyncClient, far_end: FarEnd, query: str, field: str, words: str
) -> None:
    response = await client.get(f"/v1/ledger/entries?{query}", headers=SIGNED)

    assert (response.status_code, response.json()["reason"]) == (400, "BODY_MALFORMED")
    assert words in violations(response)[field]
    assert far_end.calls("ListEntries") == []


async def test_a_list_of_objects_in_a_query_is_json(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    rates = [{"currency": "USD", "rate": "12.5"}, {"currency": "NGN", "rate": "0.0081"}]
    query = {"presentationCurrency": "GHS", "rates": json.dumps(rates)}

    response = await client.get("/v1/ledger/reports/trial-balance", headers=SIGNED, params=query)

    assert response.status_code == 200, response.text
    request = far_end.last("GetTrialBalance").request
    assert [(rate.currency, rate.rate) for rate in request.rates] == [("USD", "12.5"), ("NGN", "0.0081")]


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("rates=USD", "rates", "must be a list of objects in JSON"),
        ("rates=", "rates", "must be a list of objects in JSON"),
        ("rates={}", "rates", "must be a list"),
        ("rates=[1]", "rates[0]", "must be an object"),
        ('rates=[{"rate":1}]', "rates[0].rate", "must be a text"),
        ('rates=[{"rate":"1","rate":"2"}]', "rates", "must be a list of objects in JSON"),
        ("rates=[]&rates=[]", "rates", "is given twice"),
    ],
)
async def test_a_list_in_a_query_that_does_not_fit_is_told_by_field(
    client: httpx.AsyncClient, far_end: FarEnd, query: str, field: str, words: str
) -> None:
    response = await client.get(f"/v1/ledger/reports/trial-balance?{query}", headers=SIGNED)

    assert (response.status_code, response.json()["reason"]) == (400, "BODY_MALFORMED")
    assert words in violations(response)[field]
    assert far_end.calls("GetTrialBalance") == []


async def test_a_period_is_closed(client: httpx.AsyncClient, far_end: FarEnd) -> None:
    body = {"endTime": "2026-10-31T23:00:00+01:00"}

    response = await client.post("/v1/ledger/books/main:closePeriod", headers=WRITE, json=body)

    assert response.status_code == 200, response.text
    request = far_end.last("ClosePeriod").request
    assert (request.book_name, request.end_time.ToJsonString()) == ("main", "2026-10-31T22:00:00Z")
