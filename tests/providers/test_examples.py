"""Replays examples/*.json of every provider: what goes over the wire for a call, and what is made of the answer.

An exchange example:

    {"description": ..., "source": ..., "before": "token.json",
     "call": "find_collect", "arguments": {...}, "settings": {...},
     "exchanges": [{"request": {"method", "path", "headers", "json" or "form"},
                    "response": {"status", "headers", "json" or "text"}}],
     "outcome": {...} or "raises": "UnexpectedResponse"}

A webhook example:

    {"description": ..., "source": ..., "signed": true, "credentials": {...},
     "webhook": {"http_method", "headers", "body", "query", "receive_time"},
     "reports": [{...}]}

Whatever an example does not name is not compared. A file with "exchanges" alone is a part of others.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.provider import errors
from mesh.provider.errors import WebhookUnverified
from mesh.provider.webhook import IncomingWebhook
from tests.providers.conftest import Bench
from tests.providers.contract import Provider, all_providers, driver_of
from tests.providers.scripted import Heard, Say, scripted

WINDOW_SECONDS = 300


Example = dict[str, Any]


def _load(path: Path) -> Example:
    example: Example = json.loads(path.read_text())
    if "before" in example:
        before = json.loads((path.parent / example["before"]).read_text())["exchanges"]
        example["exchanges"] = [*before, *example["exchanges"]]
    return example


def _examples(key: str) -> list[Any]:
    return [
        pytest.param(provider, example, id=f"{provider}-{path.stem}")
        for provider in all_providers()
        for path in sorted((provider.folder / "examples").glob("*.json"))
        if key in (example := _load(path))
    ]


@pytest.mark.parametrize(("provider", "example"), _examples("call"))
async def test_an_exchange_is_as_documented(bench: Bench, example: Example) -> None:
    steps = list(example["exchanges"])

    async def script(heard: Heard) -> Say:
        step = steps.pop(0)
        assert_like(step["request"], _as_example(heard))
        response = step["response"]
        if "json" in response:
            return Say.json(response["json"], response["status"], **response.get("headers", {}))
        return Say(response["status"], response.get("text", "").encode(), response.get("headers", {}))

    call = driver_of(bench.provider.domain).call
    assert call is not None, "the domain's driver says how to make a call of an example"
    async with scripted(script) as server:
        adapter = bench.adapter(
            base_url=server.url, settings=example.get("settings"), callback_url=example.get("callback_url", "")
        )
        if "raises" in example:
            with pytest.raises(getattr(errors, example["raises"])):
                await call(adapter, example["call"], example["arguments"])
        else:
            assert_like(example["outcome"], _plain(await call(adapter, example["call"], example["arguments"])))

    assert steps == []


@pytest.mark.parametrize(("provider", "example"), _examples("webhook"))
def test_a_webhook_is_read_as_documented(bench: Bench, example: Example) -> None:
    reports = _read(bench, example, _webhook(example))

    assert_like(example["reports"], _plain(reports))


@pytest.mark.parametrize(("provider", "example"), _examples("signed"))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_one_changed_byte_makes_a_signed_webhook_unverified(
    bench: Bench, example: Example, data: st.DataObject
) -> None:
    webhook = _webhook(example)
    position = data.draw(st.integers(0, len(webhook.body) - 1))
    change = data.draw(st.integers(1, 255))
    body = bytearray(webhook.body)
    body[position] ^= change

    with pytest.raises(WebhookUnverified):
        _read(bench, example, dataclasses.replace(webhook, body=bytes(body)))


@pytest.mark.parametrize(("provider", "example"), _examples("signed"))
@pytest.mark.parametrize("seconds", [2 * WINDOW_SECONDS, -2 * WINDOW_SECONDS])
def test_a_signed_webhook_from_another_time_is_unverified(bench: Bench, example: Example, seconds: int) -> None:
    webhook = _webhook(example)
    late = dataclasses.replace(webhook, receive_time=webhook.receive_time + timedelta(seconds=seconds))

    with pytest.raises(WebhookUnverified):
        _read(bench, example, late)


@pytest.mark.parametrize(("provider", "example"), _examples("signed"))
def test_a_signed_webhook_without_its_signature_is_unverified(bench: Bench, example: Example) -> None:

    with pytest.raises(WebhookUnverified):
        _read(bench, example, dataclasses.replace(_webhook(example), headers={}))


def test_a_provider_that_calls_back_has_an_example_of_it(provider: Provider, bench: Bench) -> None:
    if "Webhooks" not in bench.registry.capabilities_of(provider.slug):
        return
    contents = [json.loads(path.read_text()) for path in (provider.folder / "examples").glob("*.json")]

    assert any("webhook" in content for content in contents)


def test_every_example_says_where_it_comes_from(provider: Provider) -> None:
    silent = [
        path.name
        for path in (provider.folder / "examples").glob("*.json")
        if {"call", "webhook"} & (content := json.loads(path.read_text())).keys()
        and not {"description", "source"} <= content.keys()
    ]

    assert silent == []


def assert_like(expected: Any, actual: Any, where: str = "") -> None:
    """Everything that an example names is as it says; what it does not name is not looked at."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for name, value in expected.items():
            assert name in actual, f"{where}.{name} is missing"
            assert_like(value, actual[name], f"{where}.{name}")
    elif isinstance(expected, list) and isinstance(actual, list):
        assert len(expected) == len(actual), where
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            assert_like(one, other, f"{where}[{index}]")
    else:
        assert expected == actual, where


def _as_example(heard: Heard) -> dict[str, Any]:
    shown: dict[str, Any] = {"method": heard.method, "path": heard.path, "headers": heard.headers}
    if heard.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        shown["form"] = dict(parse_qsl(heard.body.decode(), keep_blank_values=True))
    elif heard.body:
        shown["json"] = json.loads(heard.body)
    return shown


def _webhook(example: Example) -> IncomingWebhook:
    given = example["webhook"]
    return IncomingWebhook(
        headers={name.lower(): value for name, value in given["headers"].items()},
        body=given["body"].encode(),
        query=given.get("query", ""),
        http_method=given["http_method"],
        receive_time=datetime.fromisoformat(given["receive_time"]),
    )


def _read(bench: Bench, example: Example, webhook: IncomingWebhook) -> Any:
    usual = bench.registry.adapter_class(bench.provider.slug).sandbox_credentials
    adapter: Any = bench.adapter(credentials={**usual, **example.get("credentials", {})})
    return adapter.read_webhook(webhook)


def _plain(value: Any) -> Any:
    """Dataclasses as the JSON of an example writes them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
