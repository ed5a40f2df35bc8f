"""The verifier that stands alone: what it proves, and what no forger gets past it."""

from __future__ import annotations

import ast
import asyncio
import base64
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from kente.ledger.v1 import proof_pb2, proof_service_pb2

import kente_verify
from mesh.cli.ledger_bundle import write_bundle
from mesh.cli.output import CommandError
from services.ledger.model.accounts import Side
from services.ledger.model.checkpoints import CheckpointSigner
from services.ledger.model.merkle import Tree, leaf_hash
from services.ledger.model.postings import Entry, Kind, Transaction
from services.ledger.model.records import encode_record

TENANT = "ten_1"
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
SIGNER = CheckpointSigner("kente.example/ledger", Ed25519PrivateKey.from_private_bytes(bytes(32)))
FORGER = CheckpointSigner("kente.example/ledger", Ed25519PrivateKey.from_private_bytes(b"f" * 32))
KEY = SIGNER.verifier_key


def posting(
    leaf_index: int, first_sequence: int, amounts: list[tuple[str, Side, int, int]], **fields: Any
) -> Transaction:
    """A transaction in GHS of accounts, sides, amounts and balances after them."""
    kind = fields.get("kind", Kind.POSTING)
    entries = tuple(
        Entry(first_sequence + offset, name, side, kind is Kind.HOLD, amount, "GHS", balance)
        for offset, (name, side, amount, balance) in enumerate(amounts)
    )
    values: dict[str, Any] = {
        "transaction_id": f"txn_{leaf_index:026}",
        "kind": kind,
        "book_name": "main",
        "leaf_index": leaf_index,
        "first_sequence": first_sequence,
        "entries": entries,
        "description": "rent",
        "source_id": "",
        "metadata": {"b": "2", "a": "1"},
        "effective_time": None,
        "expire_time": None,
        "related_id": "",
        "create_time": NOW + timedelta(seconds=leaf_index),
    }
    return Transaction(**(values | fields))


D, C = Side.DEBIT, Side.CREDIT
BOOK = [
    posting(0, 1, [("bank", D, 100, 100), ("payer", C, 100, 100)]),
    posting(1, 3, [("payer", D, 30, 70), ("fees", C, 30, 30)], effective_time=NOW - timedelta(days=3)),
    posting(2, 5, [("payer", D, 50, 70), ("fees", C, 50, 30)], kind=Kind.HOLD, expire_time=NOW + timedelta(days=1)),
    posting(3, 7, [("payer", D, 20, 50), ("fees", C, 20, 50)], kind=Kind.HOLD_POSTING, related_id=f"txn_{2:026}"),
    posting(4, 9, [("bank", C, 100, 0), ("payer", D, 100, -50)], kind=Kind.REVERSAL, related_id=f"txn_{0:026}"),
    posting(5, 11, [("payer", D, 1, -50), ("fees", C, 1, 50)], kind=Kind.HOLD),
    posting(6, 13, [], kind=Kind.HOLD_VOID, related_id=f"txn_{5:026}"),
]


def records_of(book: list[Transaction]) -> list[bytes]:
    """The records of a book."""
    return [encode_record(TENANT, transaction) for transaction in book]


def note_of(records: list[bytes], signer: CheckpointSigner = SIGNER, tenant_id: str = TENANT) -> str:
    """The checkpoint of records."""
    growth = Tree().grow([leaf_hash(record) for record in records])
    return signer.sign(signer.origin_of(tenant_id), growth.size, growth.root)


def bundle_of(records: list[bytes], note: str | None = None) -> str:
    """A bundle of records."""
    header = {"form": "kente-ledger-bundle-v1", "note": note_of(records) if note is None else note, "keys": [KEY]}
    return "\n".join([json.dumps(header), *(base64.b64encode(record).decode() for record in records), ""])


def proof_of(records: list[bytes], leaf_index: int, signer: CheckpointSigner = SIGNER) -> dict[str, Any]:
    """The inclusion proof of a record, as the API gives it."""
    growth = Tree().grow([leaf_hash(record) for record in records])
    checkpoint = proof_pb2.Checkpoint(tree_size=growth.size, root_hash=growth.root, note=note_of(records, signer))
    proof = proof_pb2.InclusionProof(
        leaf_index=leaf_index,
        record=records[leaf_index],
        path=growth.inclusion_path(leaf_index),
        checkpoint=checkpoint,
    )
    return MessageToDict(proof)


class Desk:
    """Where files are put and the verifier is run on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys

    def file(self, name: str, text: str) -> str:
        """A file."""
        path = self._folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def verify(self, text: str, *arguments: str, key: str = KEY) -> tuple[int, str]:
        """The exit status, and what was said."""
        status = kente_verify.main([self.file("file", text), "--key", key, *arguments])
        output = self._capsys.readouterr()
        return status, output.out + output.err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A place to verify."""
    return Desk(tmp_path, capsys)


def test_it_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(kente_verify.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == {"cryptography"}


def test_it_runs_as_a_program_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text(bundle_of(records_of(BOOK)))
    done = subprocess.run(
        [sys.executable, "-I", kente_verify.__file__, str(tmp_path / "bundle"), "--key", KEY],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={},
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PROVED\n")


def test_a_whole_book_is_proved(desk: Desk) -> None:
    status, said = desk.verify(bundle_of(records_of(BOOK)))

    assert status == 0
    assert "7 transactions, 12 entries, 3 accounts" in said


def test_an_empty_book_is_proved(desk: Desk) -> None:
    assert desk.verify(bundle_of([]))[0] == 0


@pytest.mark.parametrize("leaf_index", range(len(BOOK)))
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_a_single_transaction_is_proved_and_described(desk: Desk, leaf_index: int, *, is_wrapped: bool) -> None:
    proof = proof_of(records_of(BOOK), leaf_index)
    status, said = desk.verify(json.dumps({"proof": proof} if is_wrapped else proof, indent=1))

    assert status == 0
    assert f"{BOOK[leaf_index].transaction_id} is leaf {leaf_index} of the 7" in said
    assert "rent" in said


def test_a_kept_note_is_found_in_the_book(desk: Desk) -> None:
    records = records_of(BOOK)
    for size in range(len(BOOK) + 1):
        kept = desk.file("kept", note_of(records[:size]))
        status, said = desk.verify(bundle_of(records), "--kept-note", kept)

        assert status == 0
        assert f"the {size} transactions of the kept note are unchanged" in said


def test_a_book_that_was_cut_off_or_rewritten_does_not_continue_the_kept_note(desk: Desk) -> None:
    records = records_of(BOOK)
    kept = desk.file("kept", note_of(records))
    rewritten = records_of([*BOOK[:6], replace(BOOK[6], description="other")])

    cut = desk.verify(bundle_of(records[:6]), "--kept-note", kept)
    changed = desk.verify(bundle_of(rewritten), "--kept-note", kept)

    assert cut == (1, "WRONG: of the 7 transactions of the kept note only 6 are left\n")
    assert changed == (1, "WRONG: the first 7 transactions are not those of the note that was kept\n")


def test_a_dropped_doubled_or_moved_record_is_found(desk: Desk) -> None:
    records = records_of(BOOK)
    note = note_of(records)
    for place in range(len(records)):
        for wrong in (
            records[:place] + records[place + 1 :],
            [*records[: place + 1], *records[place:]],
            [*records[:place], *records[place : place + 2][::-1], *records[place + 2 :]],
        ):
            if wrong != records:
                assert desk.verify(bundle_of(wrong, note))[0] == 1


@given(data=st.data())
def test_one_changed_byte_of_a_record_is_found(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    records = records_of(BOOK)
    note = note_of(records)
    place = data.draw(st.integers(0, len(records) - 1))
    offset = data.draw(st.integers(0, len(records[place]) - 1))
    changed = bytearray(records[place])
    changed[offset] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed-bundle"
    path.write_text(bundle_of([*records[:place], bytes(changed), *records[place + 1 :]], note))

    assert kente_verify.main([str(path), "--key", KEY]) == 1


def wrong_books() -> list[Any]:
    """Books that a ledger with a fault, or a forger who has its key, might sign; and what is said about them."""

    def changed(place: int, **fields: Any) -> list[Transaction]:
        return [*BOOK[:place], replace(BOOK[place], **fields), *BOOK[place + 1 :]]

    def with_entry(leaf_index: int, place: int, **fields: Any) -> list[Transaction]:
        entries = list(BOOK[leaf_index].entries)
        entries[place] = replace(entries[place], **fields)
        return changed(leaf_index, entries=tuple(entries))

    return [
        pytest.param(with_entry(1, 0, amount_minor=31), "the debits and credits", id="unbalanced"),
        pytest.param(with_entry(1, 0, currency="NGN"), "the debits and credits", id="unbalanced by currency"),
        pytest.param(with_entry(1, 0, balance_after_minor=71), "payer has 71", id="balance"),
        pytest.param(with_entry(0, 0, balance_after_minor=7), "bank has 7", id="first balance"),
        pytest.param(with_entry(2, 0, balance_after_minor=20), "payer has 20", id="a hold that moves"),
        pytest.param(with_entry(1, 0, pending=True), "none can have", id="pending without a hold"),
        pytest.param(with_entry(2, 0, pending=False), "none can have", id="a hold that is not pending"),
        pytest.param(with_entry(1, 0, amount_minor=-30), "a number that can't be", id="negative amount"),
        pytest.param(changed(1, leaf_index=2), "says leaf 2 at leaf 1", id="leaf"),
        pytest.param(changed(1, first_sequence=4), "does not begin at entry 3", id="sequence"),
        pytest.param(changed(1, create_time=NOW - timedelta(seconds=1)), "booked before", id="time"),
        pytest.param(changed(1, transaction_id=BOOK[0].transaction_id), "was booked twice", id="twice"),
        pytest.param(changed(3, related_id="txn_x"), "ends no open hold", id="no hold"),
        pytest.param(changed(6, related_id=BOOK[2].transaction_id), "ends no open hold", id="ended hold"),
        pytest.param(changed(4, related_id="txn_x"), "reverses nothing", id="no reversed"),
    ]


@pytest.mark.parametrize(("book", "words"), wrong_books())
def test_a_book_that_can_not_be_is_found_even_when_it_is_signed(
    desk: Desk, book: list[Transaction], words: str
) -> None:
    status, said = desk.verify(bundle_of(records_of(book)))

    assert status == 1
    assert words in said


def test_another_tenants_records_are_found_even_when_they_are_signed(desk: Desk) -> None:
    records = [encode_record("ten_2", transaction) for transaction in BOOK]

    assert "is not of tenant ten_1" in desk.verify(bundle_of(records))[1]
    assert desk.verify(json.dumps(proof_of(records, 3)))[0] == 1


def test_a_forged_signature_is_found(desk: Desk) -> None:
    records = records_of(BOOK)
    forged = note_of(records, FORGER)
    posed = note_of(records).replace("ten_1", "ten_2")
    # The forger names the key of the ledger beside his own signature.
    ours, theirs = (base64.b64decode(note.split()[-1]) for note in (note_of(records), forged))
    named = forged.replace(base64.b64encode(theirs).decode(), base64.b64encode(ours[:4] + theirs[4:]).decode())

    assert "none of the keys you trust" in desk.verify(bundle_of(records, forged))[1]
    assert "is forged" in desk.verify(bundle_of(records, posed))[1]
    assert "is forged" in desk.verify(bundle_of(records, named))[1]
    assert desk.verify(json.dumps(proof_of(records, 3, FORGER)))[0] == 1
    assert desk.verify(bundle_of(records, forged), "--key", FORGER.verifier_key)[0] == 0


@pytest.mark.parametrize("leaf_index", range(len(BOOK)))
def test_a_changed_proof_is_found(desk: Desk, leaf_index: int) -> None:
    records = records_of(BOOK)
    proof = proof_of(records, leaf_index)
    other = (leaf_index + 1) % len(BOOK)
    path = proof["path"]
    wrongs: list[dict[str, Any]] = [
        {"record": base64.b64encode(records[other]).decode()},
        {"leafIndex": str(other)},
        {"leafIndex": "7"},
        {"leafIndex": "-1"},
        {"path": path[1:]},
        {"path": [*path, path[0]]},
        {"path": path[::-1] if path != path[::-1] else []},
        {"checkpoint": {"note": note_of(records[:6])}},
    ]
    for wrong in wrongs:
        assert desk.verify(json.dumps(proof | wrong))[0] == 1, wrong


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "{}", '{"proof": 1}', '{"record": "AA"}', "[" * 100_000]
)
def test_a_file_of_something_else_is_not_checked(desk: Desk, text: str) -> None:
    assert desk.verify(text)[0] == 2


def test_what_it_is_given_wrongly_is_said(desk: Desk, tmp_path: Path) -> None:
    bundle, proof = bundle_of(records_of(BOOK)), json.dumps(proof_of(records_of(BOOK), 3))
    kept = desk.file("kept", note_of(records_of(BOOK)))
    other = desk.file("other", SIGNER.sign(SIGNER.origin_of("ten_2"), 0, Tree().root))

    assert desk.verify(bundle, key="kente.example/ledger+00000000+AAAA")[0] == 2
    assert desk.verify(bundle, key=KEY.replace("+", "+0", 1))[0] == 2
    assert desk.verify(bundle, "--kept-note", str(tmp_path / "missing"))[0] == 2
    assert desk.verify(bundle, "--kept-note", other)[0] == 2
    assert desk.verify(proof, "--kept-note", kept)[0] == 2
    assert kente_verify.main([str(tmp_path / "missing"), "--key", KEY]) == 2
    with pytest.raises(SystemExit) as ended:
        kente_verify.main([kept])
    assert ended.value.code == 2


def test_keys_may_come_from_a_file(desk: Desk, tmp_path: Path) -> None:
    keys = desk.file("keys", f"{FORGER.verifier_key}\n\n{KEY}\n")
    path = desk.file("bundle", bundle_of(records_of(BOOK)))

    assert kente_verify.main([path, "--keys", keys]) == 0
    assert kente_verify.main([path, "--keys", str(tmp_path / "missing")]) == 2


async def parts_of(records: list[bytes], first: int = 0) -> AsyncIterator[proof_service_pb2.ExportRecordsResponse]:
    """What the ledger streams of records."""
    checkpoint = proof_pb2.Checkpoint(tree_size=len(records), note=note_of(records))
    yield proof_service_pb2.ExportRecordsResponse(checkpoint=checkpoint)
    for start in range(first, len(records), 3):
        yield proof_service_pb2.ExportRecordsResponse(first_leaf_index=start, records=records[start : start + 3])


async def test_the_bundle_of_the_command_line_is_proved(desk: Desk) -> None:
    file, told = io.BytesIO(), list[tuple[int, int]]()
    written = await write_bundle(parts_of(records_of(BOOK)), [KEY], file, lambda *counts: told.append(counts))

    assert await asyncio.to_thread(desk.verify, file.getvalue().decode()) == desk.verify(bundle_of(records_of(BOOK)))
    assert written == len(file.getvalue())
    assert told == [(0, 7), (3, 7), (6, 7), (7, 7)]


async def test_half_an_export_makes_no_bundle() -> None:
    async def interrupted() -> AsyncIterator[proof_service_pb2.ExportRecordsResponse]:
        parts = [part async for part in parts_of(records_of(BOOK))]
        for part in parts[:-1]:
            yield part

    for parts in (interrupted(), parts_of(records_of(BOOK), first=3), parts_of([])):
        with pytest.raises(CommandError):
            await write_bundle(parts, [KEY], io.BytesIO(), lambda *_: None)
