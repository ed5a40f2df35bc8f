"""What opens a key, and what a key may hold."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Problem
from mesh.ids import new_id
from mesh.tokens import Principal
from services.identity.model import (
    ApiKey,
    ApiKeyDraft,
    PresentedKey,
    StoredKey,
    check_scopes,
    grant_scopes,
    opens,
    token_lifetime_seconds,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KNOWN = frozenset({"payments:read", "payments:write", "ledger:read"})
OPERATOR = Principal("spiffe://kente/operator", "", frozenset(), "service")

scopes = st.frozensets(st.sampled_from(sorted(KNOWN)))


def stored(presented: PresentedKey, *, revoked: bool = False, expire_time: datetime | None = None) -> StoredKey:
    key = ApiKey(
        api_key_id=presented.api_key_id,
        tenant_id="ten_1",
        display_name="till",
        scopes=("payments:read",),
        create_time=NOW - timedelta(days=1),
        revoke_time=NOW - timedelta(hours=1) if revoked else None,
        expire_time=expire_time,
    )
    return StoredKey(key, presented.secret_digest())


def test_the_text_of_a_key_has_its_id_and_32_random_bytes() -> None:
    presented = PresentedKey.generate("key_01jd3x0r8v5m1q9z2k7c4b6t8n")

    assert re.fullmatch(r"kente_01jd3x0r8v5m1q9z2k7c4b6t8n_[A-Za-z0-9_-]{43}", presented.to_text())
    assert PresentedKey.from_text(presented.to_text()) == presented
    assert PresentedKey.generate(presented.api_key_id) != presented


def test_the_secret_is_not_in_the_text_of_a_presented_key() -> None:
    presented = PresentedKey.generate(new_id("key"))

    assert presented.secret not in repr(presented)


def test_a_key_opens_by_its_own_secret_only() -> None:
    presented, other = PresentedKey.generate("key_1"), PresentedKey.generate("key_1")

    assert opens(presented, stored(presented), NOW)
    assert not opens(other, stored(presented), NOW)
    assert not opens(presented, None, NOW)


def test_a_revoked_or_expired_key_does_not_open() -> None:
    presented = PresentedKey.generate("key_1")

    assert not opens(presented, stored(presented, revoked=True), NOW)
    assert not opens(presented, stored(presented, expire_time=NOW), NOW)
    assert opens(presented, stored(presented, expire_time=NOW + timedelta(microseconds=1)), NOW)


@given(st.text(max_size=120))
def test_text_of_another_shape_is_a_key_that_does_not_exist(text: str) -> None:
    presented = PresentedKey.from_text(text)

    assert presented.api_key_id == "key_" + "0" * 26
    assert not opens(presented, None, NOW)


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}=", "K{}", "{}a"])
def test_a_key_with_something_around_it_is_another_key(change: str) -> None:
    presented = PresentedKey.generate("key_" + "1" * 26)

    assert PresentedKey.from_text(change.format(presented.to_text())).secret == ""


@given(scopes, scopes)
def test_a_client_gives_only_what_it_holds(held: frozenset[str], given_scopes: frozenset[str]) -> None:
    creator = Principal("key_1", "ten_1", held, "client")
    asked = sorted(given_scopes)
    if given_scopes <= held:
        check_scopes(asked, known=KNOWN, creator=creator)
        return

    with pytest.raises(Problem) as caught:
        check_scopes(asked, known=KNOWN, creator=creator)

    assert caught.value.reason_name == "SCOPE_MISSING"
    assert caught.value.metadata == {"scope": " ".join(sorted(given_scopes - held))}


def test_an_operator_gives_any_scope_that_exists() -> None:
    check_scopes(sorted(KNOWN), known=KNOWN, creator=OPERATOR)


def test_a_scope_that_does_not_exist_is_named_by_its_place() -> None:
    with pytest.raises(Problem) as caught:
        check_scopes(["payments:read", "paymnets:write"], known=KNOWN, creator=OPERATOR)

    assert [violation.field for violation in caught.value.violations] == ["scopes[1]"]
    assert "payments:write" in caught.value.detail


@given(scopes, scopes)
def test_a_token_gets_exactly_what_is_asked_for_and_held(held: frozenset[str], asked: frozenset[str]) -> None:
    wanted = "  ".join(sorted(asked))
    if asked <= held:
        assert set(grant_scopes(held, wanted)) == (asked or held)
        return

    with pytest.raises(Problem, match="SCOPE_MISSING"):
        grant_scopes(held, wanted)


@given(st.integers(1, 10_000_000_000))
def test_a_token_never_outlives_its_key_by_more_than_a_second(microseconds: int) -> None:
    key = stored(PresentedKey.generate("key_1"), expire_time=NOW + timedelta(microseconds=microseconds)).key
    lifetime_seconds = token_lifetime_seconds(key, NOW, 300)

    assert 1 <= lifetime_seconds <= 300
    assert lifetime_seconds == 1 or lifetime_seconds * 1_000_000 <= microseconds


def test_a_key_without_an_end_gives_tokens_of_the_full_lifetime() -> None:
    assert token_lifetime_seconds(stored(PresentedKey.generate("key_1")).key, NOW, 300) == 300


@given(scopes, st.text(max_size=5), st.none() | st.datetimes(timezones=st.just(UTC)))
def test_a_key_is_recognised_by_the_request_that_made_it(held: frozenset[str], name: str, end: datetime | None) -> None:
    draft = ApiKeyDraft(name, tuple(sorted(held)), end)
    key = ApiKey("key_1", "ten_1", name, tuple(sorted(held)), NOW, expire_time=end)

    assert key.was_made_from(draft)
    assert not key.was_made_from(ApiKeyDraft(name + "x", draft.scopes, end))
    assert not key.was_made_from(ApiKeyDraft(name, ("tenants:read",), end))
