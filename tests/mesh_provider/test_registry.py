"""Providers are found by their folders, checked, and opened once for each connection."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.ids import new_id
from mesh.provider.connection import Connection, Environment
from mesh.provider.errors import BadCredentials
from mesh.provider.registry import IncompleteProvider, Registry, UnknownProvider


def connection(**changes: object) -> Connection:
    adapter_class = Registry("payments").adapter_class("mtn_momo")
    values: dict[str, object] = {
        "connection_id": new_id("con"),
        "tenant_id": "ten_1",
        "provider": "mtn_momo",
        "environment": Environment.SANDBOX,
        "base_url": None,
        "settings": {},
        "credentials": adapter_class.sandbox_credentials,
        "callback_url": "",
    }
    return Connection(**(values | changes))  # type: ignore[arg-type]  # the types are those of the class


@pytest.fixture
def extra_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose sub-folders are providers of payments, too."""
    package = importlib.import_module("services.payments.providers")
    package.__path__.append(str(tmp_path))
    yield tmp_path
    package.__path__.remove(str(tmp_path))


def test_facts_come_from_the_adapter_and_the_port() -> None:
    facts = {each.slug: each for each in Registry("payments").describe()}["mtn_momo"]

    assert facts.domain == "payments"
    assert facts.capabilities == ("WalletCollect", "Refund", "Payout", "Balance", "HolderCheck", "Webhooks")
    assert "GH" in facts.countries
    assert [field.name for field in facts.credential_fields if not field.optional] == [
        "collection_subscription_key",
        "collection_api_user",
        "collection_api_key",
    ]


def test_an_unknown_provider_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownProvider, match=r"acme.*mtn_momo"):
        Registry("payments").adapter_class("acme")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"__init__.py": ""}, r"adapter.py, simulator.py is missing"),
        ({"__init__.py": "", "simulator.py": "", "adapter.py": ""}, r"defines 0 adapter classes"),
        (
            {
                "__init__.py": "",
                "simulator.py": "",
                "adapter.py": "from mesh.provider.adapter import Adapter\nclass A(Adapter):\n    slug = 'b'\n",
            },
            r"display_name is not set; countries is not set",
        ),
    ],
)
def test_a_folder_that_is_not_complete_says_what_it_lacks(
    extra_folder: Path, files: dict[str, str], complaint: str
) -> None:
    slug = f"broken_{len(files)}_{abs(hash(complaint)) % 10_000}"
    (extra_folder / slug).mkdir()
    for name, content in files.items():
        (extra_folder / slug / name).write_text(content)

    with pytest.raises(IncompleteProvider, match=complaint):
        Registry("payments").adapter_class(slug)


def test_folders_that_begin_with_an_underscore_are_no_providers(extra_folder: Path) -> None:
    (extra_folder / "_family").mkdir()

    assert "_family" not in Registry("payments").slugs()


async def test_the_same_connection_has_one_adapter_and_a_changed_one_another() -> None:
    registry, first = Registry("payments"), connection()

    adapter = registry.open(first)
    same = registry.open(connection(connection_id=first.connection_id))
    changed = registry.open(connection(connection_id=first.connection_id, callback_url="http://127.0.0.1/changed"))

    assert same is adapter
    assert changed is not adapter
    assert changed.http._guard is adapter.http._guard
    await registry.close()


async def test_a_sandbox_connection_uses_our_own_sandbox_unless_it_has_an_address() -> None:
    registry = Registry("payments", sandbox_url="http://127.0.0.1:7480/")

    assert registry.open(connection()).base_url == "http://127.0.0.1:7480/mtn_momo"
    assert registry.open(connection(base_url="https://x.example/")).base_url == "https://x.example"
    production = registry.open(connection(environment=Environment.PRODUCTION))
    assert production.base_url == "https://proxy.momoapi.mtn.com"
    await registry.close()


@pytest.mark.parametrize("text", ["soon", "0", "-1", "1000", "nan"])
def test_a_time_limit_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadCredentials, match="timeout_seconds"):
        Registry("payments").open(connection(settings={"timeout_seconds": text}))


def test_missing_credentials_are_named() -> None:
    with pytest.raises(BadCredentials, match="collection_api_user is missing"):
        Registry("payments").open(connection(credentials={"collection_subscription_key": "k"}))
