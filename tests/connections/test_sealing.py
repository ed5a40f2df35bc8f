"""What sealed credentials withstand."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.connections.model import KeyRing, KeyUnknownError, SealBrokenError, SealError, key_id_of

OLD, NEW, THIRD = ("k1", b"1" * 32), ("k2", b"2" * 32), ("k3", b"3" * 32)
RING = KeyRing([NEW, OLD, THIRD])
TENANT_ID, CONNECTION_ID = "ten_01jd3x0r8v5m1q9z2k7c4b6t8n", "con_01jd3x0r8v5m1q9z2k7c4b6t8n"

credentials_of_any_kind = st.dictionaries(st.text(min_size=1, max_size=40), st.text(max_size=200), max_size=8)
ids = st.text(st.sampled_from("0123456789abcdefghjkmnpqrstvwxyz_"), min_size=1, max_size=30)


def seal(credentials: dict[str, str], ring: KeyRing = RING) -> bytes:
    return ring.seal(credentials, tenant_id=TENANT_ID, connection_id=CONNECTION_ID)


def open_sealed(sealed: bytes, ring: KeyRing = RING) -> dict[str, str]:
    return ring.open(sealed, tenant_id=TENANT_ID, connection_id=CONNECTION_ID)


@given(credentials_of_any_kind, ids, ids)
def test_what_was_sealed_opens_again(credentials: dict[str, str], tenant_id: str, connection_id: str) -> None:
    sealed = RING.seal(credentials, tenant_id=tenant_id, connection_id=connection_id)

    assert RING.open(sealed, tenant_id=tenant_id, connection_id=connection_id) == credentials


@given(credentials_of_any_kind, st.data())
def test_a_change_of_any_byte_keeps_it_shut(credentials: dict[str, str], data: st.DataObject) -> None:
    sealed = bytearray(seal(credentials))
    position = data.draw(st.integers(0, len(sealed) - 1), label="position")
    sealed[position] ^= data.draw(st.integers(1, 255), label="change")

    with pytest.raises(SealError):
        open_sealed(bytes(sealed))


def test_every_change_of_every_byte_of_the_head_keeps_it_shut() -> None:
    sealed = seal({"api_key": "value"})

    for position in range(6):
        for change in range(1, 256):
            changed = bytearray(sealed)
            changed[position] ^= change
            with pytest.raises(SealError):
                open_sealed(bytes(changed))


@given(st.integers(0, 400), st.binary(min_size=1, max_size=20))
def test_a_cut_or_an_addition_keeps_it_shut(length: int, addition: bytes) -> None:
    sealed = seal({"api_key": "value" * 80})

    for changed in (sealed[:length], sealed + addition, addition + sealed):
        with pytest.raises(SealError):
            open_sealed(changed)


@given(st.binary(max_size=300))
def test_bytes_that_were_never_sealed_do_not_open(junk: bytes) -> None:
    with pytest.raises(SealError):
        open_sealed(junk)


@given(credentials_of_any_kind, ids, ids)
def test_it_opens_for_no_other_tenant_and_no_other_connection(
    credentials: dict[str, str], tenant: str, link: str
) -> None:
    sealed = seal(credentials)

    with pytest.raises(SealBrokenError):
        RING.open(sealed, tenant_id=tenant, connection_id=CONNECTION_ID)
    with pytest.raises(SealBrokenError):
        RING.open(sealed, tenant_id=TENANT_ID, connection_id=link)


@given(ids, ids)
def test_ids_that_only_join_to_the_same_text_do_not_open_each_others(tenant_id: str, connection_id: str) -> None:
    sealed = RING.seal({"a": "b"}, tenant_id=tenant_id + "_", connection_id=connection_id)

    with pytest.raises(SealBrokenError):
        RING.open(sealed, tenant_id=tenant_id, connection_id="_" + connection_id)


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=60))
def test_the_secret_is_nowhere_in_the_sealed_bytes(secret: str) -> None:
    assert secret.encode() not in seal({"api_key": secret})


def test_equal_credentials_are_sealed_differently() -> None:
    assert seal({"api_key": "value"}) != seal({"api_key": "value"})


def test_a_new_key_seals_and_an_old_one_still_opens() -> None:
    before = KeyRing([OLD])
    after = KeyRing([NEW, OLD])
    sealed_before = seal({"api_key": "value"}, before)

    assert open_sealed(sealed_before, after) == {"api_key": "value"}
    assert key_id_of(sealed_before) == "k1"
    assert key_id_of(seal({"api_key": "value"}, after)) == "k2"


def test_a_retired_key_is_named() -> None:
    sealed = seal({"api_key": "value"}, KeyRing([OLD]))

    with pytest.raises(KeyUnknownError, match="'k1', which is not configured"):
        open_sealed(sealed, KeyRing([NEW]))


def test_another_key_under_the_same_id_does_not_open() -> None:
    sealed = seal({"api_key": "value"}, KeyRing([("k1", b"x" * 32)]))

    with pytest.raises(SealBrokenError):
        open_sealed(sealed, KeyRing([("k1", b"y" * 32)]))


ONE, TWO = base64.b64encode(b"1" * 32).decode(), base64.urlsafe_b64encode(b"\xff" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"new:{ONE},old:{TWO}",
        f" new:{ONE} , old:{TWO}, ",
        json.dumps({"new": ONE, "old": TWO}),
        json.dumps([f"new:{ONE}", f"old:{TWO}"]),
    ],
)
def test_keys_are_read_in_each_of_their_forms_and_the_first_is_current(text: str) -> None:
    ring = KeyRing.parse(text)

    assert ring.current_key_id == "new"
    assert open_sealed(seal({"a": "b"}, KeyRing([("old", b"\xff" * 32)])), ring) == {"a": "b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no key is given"),
        (" , ", "no key is given"),
        ("{}", "no key is given"),
        (f"k1:{base64.b64encode(b'1' * 31).decode()}", "the key k1 has 31 bytes and needs 32"),
        ("k1:", "the key k1 has 0 bytes and needs 32"),
        ("k1:not base64!", "the key k1 is not base64"),
        (f"k1:{ONE},k1:{TWO}", "the key id k1 comes twice"),
        (json.dumps({"k1": ONE})[:-1] + f', "k1": "{ONE}"}}', "the key id k1 comes twice"),
        ("{k1", "begins like JSON and is none"),
        (f"k 1:{ONE}", "entry 1 is not id:base64"),
        (ONE, "entry 1 is not id:base64"),
        (ONE.rstrip("="), "entry 1 is not id:base64"),
        (f"k1:{ONE},{TWO}", "entry 2 is not id:base64"),
    ],
)
def test_wrong_keys_are_told_in_one_line_without_a_key(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        KeyRing.parse(text)

    assert "\n" not in str(caught.value)
    assert ONE.rstrip("=") not in str(caught.value)


def test_keys_are_not_in_the_text_of_a_ring() -> None:
    assert "1111" not in repr(RING)
    assert repr(RING) == "KeyRing(k2, k1, k3)"
