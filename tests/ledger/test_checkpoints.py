"""Signed notes, against those that the format's own implementation is tested with, and against forgers."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.model.checkpoints import CheckpointSigner, NoteError, VerifierKey, read_head, verify_note

NAME = "kente.example/ledger"
ORIGIN = f"{NAME}/ten_1"
ROOT = bytes(range(32))
SIGNER = CheckpointSigner(NAME, Ed25519PrivateKey.from_private_bytes(bytes(32)))
OTHER = CheckpointSigner("other.example/log", Ed25519PrivateKey.from_private_bytes(b"o" * 32))
SUCCESSOR = CheckpointSigner(NAME, Ed25519PrivateKey.from_private_bytes(b"s" * 32))
# Of the package golang.org/x/mod/sumdb/note, which the format comes from.
KNOWN_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
KNOWN_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
KNOWN_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def signed_text(text: str, signer: CheckpointSigner = SIGNER) -> str:
    """Any text with a right signature, also one that no signer would sign."""
    signature = VerifierKey.parse(signer.verifier_key).key_id + signer._key.sign(text.encode())
    return f"{text}\n\u2014 {signer.name} {base64.b64encode(signature).decode()}\n"


def with_signature_of(signer: CheckpointSigner, note: str) -> str:
    """The note with one more signature."""
    text = note.rpartition("\n\n")[0] + "\n"
    return note + signed_text(text, signer).rpartition("\n\n")[2]


def test_a_known_key_verifies_its_known_note() -> None:
    key = VerifierKey.parse(KNOWN_KEY)
    signature = base64.b64decode(KNOWN_SIGNATURE)

    assert str(key) == KNOWN_KEY
    assert signature[:4] == key.key_id
    assert key.verifies(KNOWN_TEXT, signature[4:])
    assert not key.verifies(KNOWN_TEXT + "\n", signature[4:])


def test_a_checkpoint_has_the_form_of_a_log_head() -> None:
    note = SIGNER.sign(ORIGIN, 5, ROOT)
    lines = note.split("\n")

    assert lines[:4] == [ORIGIN, "5", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", ""]
    assert lines[4].startswith(f"\u2014 {NAME} ")
    assert lines[5:] == [""]


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_says_what_was_signed(tree_size: int, root_hash: bytes) -> None:
    note = SIGNER.sign(ORIGIN, tree_size, root_hash)

    assert verify_note(note, [SIGNER.verifier_key]) == (ORIGIN, tree_size, root_hash)
    assert read_head(note) == (ORIGIN, tree_size, root_hash)


def test_signatures_of_unknown_keys_are_ignored() -> None:
    note = with_signature_of(OTHER, SIGNER.sign(ORIGIN, 5, ROOT))

    assert verify_note(note, [SIGNER.verifier_key]).tree_size == 5


def test_a_note_that_only_unknown_keys_signed_is_refused() -> None:
    with pytest.raises(NoteError, match="no known key"):
        verify_note(SIGNER.sign(ORIGIN, 5, ROOT), [OTHER.verifier_key, SUCCESSOR.verifier_key])
    with pytest.raises(NoteError, match="no known key"):
        verify_note(SIGNER.sign(ORIGIN, 5, ROOT), [])


def test_any_of_several_keys_will_do_so_that_keys_can_be_changed() -> None:
    keys = [SUCCESSOR.verifier_key, SIGNER.verifier_key]

    assert verify_note(SIGNER.sign(ORIGIN, 5, ROOT), keys).tree_size == 5
    assert verify_note(SUCCESSOR.sign(ORIGIN, 6, ROOT), keys).tree_size == 6


def test_one_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    wrong = SUCCESSOR.sign(ORIGIN, 6, ROOT).rpartition("\n\n")[2]
    note = SIGNER.sign(ORIGIN, 5, ROOT) + wrong

    assert verify_note(note, [SIGNER.verifier_key]).tree_size == 5
    with pytest.raises(NoteError, match="is wrong"):
        verify_note(note, [SIGNER.verifier_key, SUCCESSOR.verifier_key])


def test_a_key_does_not_speak_for_another_log() -> None:
    note = signed_text(f"kente.example/ledgers\n5\n{base64.b64encode(ROOT).decode()}\n")

    with pytest.raises(NoteError, match="origin"):
        verify_note(note, [SIGNER.verifier_key])


@given(st.data())
def test_a_note_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    note = SIGNER.sign(ORIGIN, 1234, ROOT)
    place = data.draw(st.integers(0, len(note) - 1))
    character = data.draw(st.characters().filter(lambda character: character != note[place]))
    changed = note[:place] + character + note[place + 1 :]

    try:
        head = verify_note(changed, [SIGNER.verifier_key])
    except NoteError:
        return
    # The last bits of base64 that stand for nothing are the only ones that nobody signs.
    assert head == (ORIGIN, 1234, ROOT)
    assert changed.rpartition("\n\n")[0] == note.rpartition("\n\n")[0]


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n05\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n-5\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n5\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"{ORIGIN}\n5\nnot base64!\n",
        f"{ORIGIN}\n5\n",
        f"{ORIGIN}\n\n5\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n\u0665\n{base64.b64encode(ROOT).decode()}\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError, match="no checkpoint"):
        verify_note(signed_text(text), [SIGNER.verifier_key])


@pytest.mark.parametrize(
    "note", ["", "\n", "text", "a\n1\nb\n", "a\n\n\u2014 x\n", "a\n\n- x AAAA\n", "a\r\n\n\u2014 x AAAA\n"]
)
def test_a_text_that_is_no_signed_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        verify_note(note, [SIGNER.verifier_key])


def test_extension_lines_do_no_harm() -> None:
    note = signed_text(f"{ORIGIN}\n5\n{base64.b64encode(ROOT).decode()}\nmore\n")

    assert verify_note(note, [SIGNER.verifier_key]) == (ORIGIN, 5, ROOT)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "name",
        "name+00000000",
        KNOWN_KEY.replace("c74f20a3", "c74f20a4"),
        KNOWN_KEY.replace("PeterNeumann", "Peter Neumann"),
        KNOWN_KEY[:-4],
        KNOWN_KEY.replace("+AR", "+BR"),
    ],
)
def test_a_verifier_key_with_a_slip_in_it_is_refused(key: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(key)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "line\n"])
def test_a_log_can_not_have_a_name_that_breaks_its_notes(name: str) -> None:
    with pytest.raises(NoteError):
        CheckpointSigner(name, Ed25519PrivateKey.from_private_bytes(bytes(32)))
