"""What a new connection must be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Problem
from mesh.provider.connection import Environment
from services.connections.model import ConnectionDraft, CredentialField, Provider, check_draft

SECRET = "never-to-be-seen"
PROVIDER = Provider(
    "acme",
    "payments",
    (
        CredentialField("api_key", "Key of the app", optional=False),
        CredentialField("webhook_secret", "", optional=True),
    ),
)


def draft(
    credentials: dict[str, str] | None = None, settings: dict[str, str] | None = None, base_url: str = ""
) -> ConnectionDraft:
    return ConnectionDraft(
        provider="acme",
        display_name="Acme",
        environment=Environment.SANDBOX,
        base_url=base_url,
        settings=settings or {},
        credentials={"api_key": SECRET} if credentials is None else credentials,
    )


def violations(of: ConnectionDraft) -> dict[str, str]:
    with pytest.raises(Problem) as caught:
        check_draft(of, PROVIDER)
    assert caught.value.reason_name == "FIELD_INVALID"
    assert SECRET not in str(caught.value)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_a_draft_with_all_that_is_needed_passes() -> None:
    check_draft(draft(), PROVIDER)
    check_draft(draft({"api_key": SECRET, "webhook_secret": SECRET}), PROVIDER)


def test_a_missing_credential_is_named_and_described() -> None:
    assert violations(draft({})) == {"credentials.api_key": "is missing: Key of the app"}


def test_an_unknown_credential_is_named_with_those_that_are_known() -> None:
    found = violations(draft({"api_key": SECRET, "apikey": SECRET}))

    assert found == {"credentials.apikey": "is not known: acme takes api_key, webhook_secret"}


def test_an_empty_credential_is_refused() -> None:
    assert "credentials.api_key" in violations(draft({"api_key": ""}))


def test_a_credential_without_bounds_is_refused() -> None:
    assert "credentials.api_key" in violations(draft({"api_key": "x" * 20_000}))


@pytest.mark.parametrize(("name", "value"), [(SECRET, "api_key"), (SECRET.replace("-", ""), "api_key"), (SECRET, "")])
def test_a_secret_in_the_place_of_a_name_is_not_repeated(name: str, value: str) -> None:
    found = violations(draft({"api_key": SECRET, name: value}))

    assert list(found) == ["credentials"]
    assert name not in str(found)


def test_a_secret_among_the_settings_is_refused_by_name() -> None:
    found = violations(draft(settings={"api_key": SECRET}))

    assert found == {"settings.api_key": "is a credential: send it in credentials, where it is sealed"}


def test_settings_have_bounds() -> None:
    assert "settings" in violations(draft(settings={"x" * 61: "1"}))
    assert "settings.market" in violations(draft(settings={"market": "x" * 1_001}))


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "https://api.example.com",
        "https://api.example.com:8443/v1/",
        "http://127.0.0.1:7480/mtn_momo",
        "http://[::1]:7480",
        "http://localhost",
        "smtp://mail.example.com:587",
        "smtps://mail.example.com",
    ],
)
def test_an_address_that_keeps_credentials_safe_passes(base_url: str) -> None:
    check_draft(draft(base_url=base_url), PROVIDER)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "192.168.1.4"])
def test_production_credentials_are_not_sent_inside_the_mesh_own_network(host: str) -> None:
    with pytest.raises(Problem) as refused:
        check_draft(replace(draft(base_url=f"https://{host}/"), environment=Environment.PRODUCTION), PROVIDER)

    assert [violation.field for violation in refused.value.violations] == ["base_url"]


@pytest.mark.parametrize(
    ("base_url", "told"),
    [
        ("http://api.example.com", "in the clear"),
        ("http://127.0.0.1.example.com", "in the clear"),
        ("http://localhost.example.com", "in the clear"),
        ("http://10.0.0.1", "in the clear"),
        ("ftp://api.example.com", "is not an address"),
        ("file:///etc/passwd", "is not an address"),
        ("javascript:alert(1)", "is not an address"),
        ("//api.example.com", "is not an address"),
        ("api.example.com", "is not an address"),
        ("https://", "is not an address"),
        ("https://api.example.com:99999", "is not an address"),
        ("https://api.exa\nmple.com", "is not an address"),
        ("https://api.example.com/ path", "is not an address"),
        ("https://\u0430pi.example.com", "is not an address"),
        (f"https://user:{SECRET}@api.example.com", "holds a user"),
        ("https://@api.example.com", "holds a user"),
        ("http://127.0.0.1@api.example.com", "holds a user"),
        (f"https://api.example.com?key={SECRET}", "holds a query"),
        ("https://api.example.com#part", "holds a query"),
    ],
)
def test_an_address_that_would_leak_or_mislead_is_refused(base_url: str, told: str) -> None:
    assert told in violations(draft(base_url=base_url))["base_url"]


@given(st.text(max_size=60))
def test_no_text_for_an_address_breaks_the_check(base_url: str) -> None:
    try:
        check_draft(draft(base_url=base_url), PROVIDER)
    except Problem as problem:
        assert [violation.field for violation in problem.violations] == ["base_url"]  # noqa: PT017 - or it passes


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = violations(draft({"other": "1"}, {"api_key": "1"}, "http://example.com"))

    assert set(found) == {"credentials.api_key", "credentials.other", "settings.api_key", "base_url"}


def test_credentials_are_not_in_the_text_of_a_draft() -> None:
    assert SECRET not in repr(draft())
