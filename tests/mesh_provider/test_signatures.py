"""Signatures of callbacks: what verifies, and that nothing else does."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.provider.errors import WebhookUnverified
from mesh.provider.signatures import TOLERANCE_SECONDS, check_hmac, check_timestamp, hmac_text, parse_pairs

SECRETS = st.binary(min_size=1, max_size=64)
MESSAGES = st.binary(max_size=512)
ENCODINGS = st.sampled_from(["hex", "base64"])
DIGESTS = st.sampled_from(["sha256", "sha512", "sha1"])


@given(SECRETS, MESSAGES, DIGESTS, ENCODINGS)
def test_a_signature_verifies_under_its_secret(secret: bytes, message: bytes, digest: str, encoding: str) -> None:
    options = {"digest": digest, "encoding": encoding}
    signature = hmac_text(secret, message, **options)  # type: ignore[arg-type]  # drawn from the allowed words

    check_hmac([secret], message, [signature], **options)  # type: ignore[arg-type]  # as above


@given(SECRETS, MESSAGES.filter(bool), st.data())
def test_one_changed_byte_of_the_message_does_not_verify(secret: bytes, message: bytes, data: st.DataObject) -> None:
    signature = hmac_text(secret, message)
    position, change = data.draw(st.integers(0, len(message) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(message)
    changed[position] ^= change

    with pytest.raises(WebhookUnverified):
        check_hmac([secret], bytes(changed), [signature])


@given(SECRETS, SECRETS, MESSAGES)
def test_another_secret_does_not_verify(secret: bytes, other: bytes, message: bytes) -> None:
    # HMAC pads keys with zeros, so keys that differ only in those are the same key.
    if secret.rstrip(b"\0") == other.rstrip(b"\0"):
        return

    with pytest.raises(WebhookUnverified):
        check_hmac([other], message, [hmac_text(secret, message)])


@given(SECRETS, MESSAGES, st.lists(st.text(max_size=80), max_size=5))
def test_text_that_is_no_signature_does_not_verify(secret: bytes, message: bytes, given_texts: list[str]) -> None:
    with pytest.raises(WebhookUnverified):
        check_hmac([secret], message, given_texts)


def test_one_of_several_signatures_and_secrets_is_enough() -> None:
    signature = hmac_text(b"new", b"message")

    check_hmac([b"old", b"new"], b"message", ["0" * 64, signature])


def test_an_empty_secret_signs_nothing() -> None:
    with pytest.raises(WebhookUnverified):
        check_hmac([b""], b"message", [hmac_text(b"", b"message")])


def test_a_signature_behind_many_others_is_not_looked_at() -> None:
    with pytest.raises(WebhookUnverified):
        check_hmac([b"key"], b"message", ["0" * 64] * 100 + [hmac_text(b"key", b"message")])


def test_the_vector_of_a_published_scheme_verifies() -> None:
    """Stripe's: secret text, time, dot, raw body."""
    message = b'1700000000.{"id":"evt_1","object":"event","type":"payment_intent.succeeded"}'

    check_hmac([b"whsec_test_secret"], message, ["67da5088c63e080c71bd2bb0cb5c03d85a8fc6a21ce3aaf484df809654745b92"])


@given(st.integers(0, 4_000_000_000), st.integers(-TOLERANCE_SECONDS, TOLERANCE_SECONDS))
def test_a_time_within_the_window_passes(signed: int, late_seconds: int) -> None:
    arrival = max(0, signed + late_seconds)

    check_timestamp(str(signed), datetime.fromtimestamp(arrival, UTC))


@given(st.integers(1_000_000, 4_000_000_000), st.integers(TOLERANCE_SECONDS + 1, 1_000_000), st.booleans())
def test_a_time_outside_of_the_window_does_not(signed: int, off_seconds: int, early: bool) -> None:  # noqa: FBT001 - drawn
    arrival = datetime.fromtimestamp(signed - off_seconds if early else signed + off_seconds, UTC)

    with pytest.raises(WebhookUnverified):
        check_timestamp(str(signed), arrival)


@pytest.mark.parametrize("text", ["", "soon", "-1", "+1", "1_0", " 1", "1.5", "\u0661\u0667", "9" * 40])
def test_a_time_that_is_no_number_does_not_pass(text: str) -> None:
    with pytest.raises(WebhookUnverified):
        check_timestamp(text, datetime.fromtimestamp(1, UTC))


@given(st.text(max_size=300))
def test_any_header_can_be_taken_apart(header: str) -> None:
    for name, values in parse_pairs(header).items():
        assert "=" not in name
        assert values


def test_a_header_is_taken_apart_into_its_pairs() -> None:
    assert parse_pairs("t=1, v1=aa,v1=b=b,junk") == {"t": ["1"], "v1": ["aa", "b=b"]}
