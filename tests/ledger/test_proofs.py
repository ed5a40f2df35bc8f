"""Proofs by RPC, verified with nothing but what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson
from kente.ledger.v1 import ledger_pb2, proof_pb2
from kente.ledger.v1 import proof_service_pb2 as pb2

import kente_verify
from mesh.cli.ledger_bundle import export_bundle
from mesh.errors import Reason
from mesh.ids import new_id
from mesh.tokens import create_private_key
from services.ledger.model import merkle
from services.ledger.model.checkpoints import verify_note
from services.ledger.model.records import decode_record
from tests.harness import TestMesh
from tests.ledger.auditor import Auditor, fill, fill_many
from tests.ledger.book import BANK, PAYER, SCOPES, Book, credit, debit, refusal, transaction_request


@pytest.fixture
async def auditor(ledger: TestMesh, book: Book) -> Auditor:
    """Whoever asks for proofs of this test's book."""
    return Auditor.of(ledger, book)


def is_proved(proof: proof_pb2.InclusionProof, keys: list[str]) -> bool:
    """Whether a proof leads to a root that one of the keys has signed."""
    head = verify_note(proof.checkpoint.note, keys)
    hash_ = merkle.leaf_hash(proof.record)
    return merkle.verify_inclusion(hash_, proof.leaf_index, head.tree_size, list(proof.path), head.root_hash)


async def test_every_transaction_is_proved_and_its_record_says_all_of_it(auditor: Auditor, book: Book) -> None:
    booked = await fill(book)
    keys = await auditor.keys()

    for leaf_index, transaction in enumerate(booked):
        proof = await auditor.inclusion(transaction.transaction_id)
        tenant_id, recorded = decode_record(proof.record)

        assert is_proved(proof, keys)
        assert proof.leaf_index == leaf_index == recorded.leaf_index
        assert (tenant_id, recorded.transaction_id) == (book.tenant_id, transaction.transaction_id)
        assert recorded.description == transaction.description
        assert recorded.metadata == dict(transaction.metadata)
        assert [
            (entry.account_name, entry.amount_minor, entry.currency, entry.balance_after_minor, entry.sequence)
            for entry in recorded.entries
        ] == [
            (
                entry.account_name,
                entry.amount.amount_minor,
                entry.amount.currency,
                entry.balance_after.amount_minor,
                entry.sequence,
            )
            for entry in transaction.entries
        ]


async def test_the_answer_to_a_posting_carries_its_proof_when_asked_to(auditor: Auditor, open_book: Book) -> None:
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    request = transaction_request(debit(BANK, 5), credit(PAYER, 5), include_proof=True)
    answer = await open_book.stub.CreateTransaction(request)

    assert is_proved(answer.proof, await auditor.keys())
    assert decode_record(answer.proof.record)[1].transaction_id == request.transaction_id
    assert not (await open_book.stub.CreateTransaction(transaction_request(debit(BANK, 5), credit(PAYER, 5)))).HasField(
        "proof"
    )


async def test_proofs_hold_in_a_tree_of_several_levels(auditor: Auditor, open_book: Book) -> None:
    first = await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    sizes = [1]
    for count in (300, 1, 700):
        await fill_many(open_book, count)
        sizes.append(sizes[-1] + count)
    keys = await auditor.keys()
    last = await open_book.post(debit(BANK, 1), credit(PAYER, 1))

    for size in sizes:
        proof = await auditor.inclusion(first.transaction_id, size)
        assert is_proved(proof, keys)
        assert proof.checkpoint.tree_size == size
    assert is_proved(await auditor.inclusion(last.transaction_id), keys)


async def test_every_later_state_is_proved_to_continue_every_earlier_one(auditor: Auditor, open_book: Book) -> None:
    sizes = [1]
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    for count in (255, 1, 300, 40):
        await fill_many(open_book, count)
        sizes.append(sizes[-1] + count)

    for first in sizes:
        for second in [size for size in sizes if size >= first]:
            answer = await auditor.consistency(first, second)
            earlier, later = answer.first_checkpoint, answer.second_checkpoint

            assert (earlier.tree_size, later.tree_size) == (first, second)
            assert merkle.verify_consistency(first, second, earlier.root_hash, later.root_hash, list(answer.path))


async def test_exported_records_are_the_leaves_of_the_checkpoint(auditor: Auditor, open_book: Book) -> None:
    await fill_many(open_book, 600)
    await open_book.post(debit(BANK, 1), credit(PAYER, 1), description="last")
    checkpoint = await auditor.checkpoint()

    records = await auditor.records()

    assert merkle.root_of([merkle.leaf_hash(record) for record in records]) == checkpoint.root_hash
    assert [decode_record(record)[1].leaf_index for record in records] == list(range(601))
    assert await auditor.records(start=550) == records[550:]
    assert await auditor.records(tree_size=600) == records[:600]
    assert await auditor.records(start=590, tree_size=600) == records[590:600]
    assert await auditor.records(start=5_000) == []


async def test_an_export_begins_with_its_checkpoint(auditor: Auditor, book: Book) -> None:
    await fill(book)

    parts = [part async for part in auditor.stub.ExportRecords(pb2.ExportRecordsRequest())]

    assert parts[0].checkpoint == await auditor.checkpoint()
    assert not any(part.HasField("checkpoint") for part in parts[1:])
    assert [record for part in parts for record in part.records] == await auditor.records()


async def test_bundle_and_proof_of_a_real_book_are_proved_offline(auditor: Auditor, book: Book, tmp_path: Path) -> None:
    booked = await fill(book)
    first = await auditor.checkpoint(1)
    files = {name: tmp_path / name for name in ("bundle", "proof", "keys", "kept")}
    with files["bundle"].open("wb") as file:
        await export_bundle(auditor.stub, file, lambda *_: None)
    proof = await auditor.inclusion(booked[-1].transaction_id)
    files["proof"].write_text(MessageToJson(pb2.GetInclusionProofResponse(proof=proof)))
    files["keys"].write_text("\n".join(await auditor.keys()))
    files["kept"].write_text(first.note)
    keys = ["--keys", str(files["keys"])]

    assert kente_verify.main([str(files["bundle"]), *keys, "--kept-note", str(files["kept"])]) == 0
    assert kente_verify.main([str(files["proof"]), *keys]) == 0


async def test_a_checkpoint_of_each_batch_is_kept(auditor: Auditor, open_book: Book) -> None:
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    first = await auditor.checkpoint()
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))

    assert await auditor.checkpoint(1) == first
    assert (await auditor.checkpoint()).tree_size == 2
    head = verify_note(first.note, await auditor.keys())
    assert head == (f"kente.local/ledger/{open_book.tenant_id}", 1, first.root_hash)


async def test_what_is_not_there_can_not_be_proved(auditor: Auditor, open_book: Book) -> None:
    calls: list[Any] = [
        auditor.checkpoint(),
        auditor.inclusion(new_id("txn")),
        auditor.consistency(1),
        auditor.records(),
    ]
    for call in calls:
        assert (await refusal(call)).reason is Reason.RESOURCE_NOT_FOUND

    await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    later = await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    calls = [
        auditor.checkpoint(3),
        auditor.inclusion(later.transaction_id, 3),
        auditor.inclusion(later.transaction_id, 1),
        auditor.consistency(1, 3),
        auditor.consistency(3),
        auditor.records(tree_size=3),
    ]
    for call in calls:
        assert (await refusal(call)).reason is Reason.RESOURCE_NOT_FOUND


@pytest.mark.parametrize(("first", "second", "field"), [(0, 1, "first_tree_size"), (2, 1, "second_tree_size")])
async def test_sizes_that_can_not_be_compared_are_refused(
    auditor: Auditor, open_book: Book, first: int, second: int, field: str
) -> None:
    for _ in range(2):
        await open_book.post(debit(BANK, 1), credit(PAYER, 1))

    problem = await refusal(auditor.consistency(first, second))

    assert problem.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in problem.violations] == [field]


async def test_a_tenant_gets_no_proof_of_anothers_books(ledger: TestMesh, open_book: Book) -> None:
    transaction = await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    other = Auditor(ledger.client("ledger", new_id("ten"), SCOPES))

    assert (await refusal(other.inclusion(transaction.transaction_id))).reason is Reason.RESOURCE_NOT_FOUND
    assert (await refusal(other.checkpoint())).reason is Reason.RESOURCE_NOT_FOUND
    assert [answer.checked_transactions for answer in await other.verify()] == [0]


async def test_proofs_need_the_right_to_read(ledger: TestMesh, open_book: Book) -> None:
    writer = Auditor(ledger.client("ledger", open_book.tenant_id, ("ledger:write",)))

    assert (await refusal(writer.checkpoint())).reason is Reason.SCOPE_MISSING
    assert (await refusal(writer.verify())).reason is Reason.SCOPE_MISSING


async def test_keys_are_paged_and_page_tokens_checked(auditor: Auditor) -> None:
    keys = await auditor.keys()
    found: list[str] = []
    page_token = ""
    while True:
        request = pb2.ListCheckpointKeysRequest(page_size=1, page_token=page_token)
        page = await auditor.stub.ListCheckpointKeys(request)
        found += [key.verifier_key for key in page.keys]
        page_token = page.next_page_token
        if not page_token:
            break

    assert found == keys
    problem = await refusal(auditor.stub.ListCheckpointKeys(pb2.ListCheckpointKeysRequest(page_token="x")))
    assert problem.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_new_key_signs_on_and_the_old_one_stays_published(
    ledger: TestMesh, auditor: Auditor, open_book: Book, tmp_path: Path
) -> None:
    await open_book.post(debit(BANK, 1), credit(PAYER, 1))
    before, old_keys = await auditor.checkpoint(), await auditor.keys()
    create_private_key(tmp_path / "next.jwk")
    await ledger.stop("ledger")
    await ledger.start("ledger", checkpoint_key_file=tmp_path / "next.jwk")

    channel = ledger.client("ledger", open_book.tenant_id, SCOPES)
    later, book = Auditor(channel), Book(channel, open_book.tenant_id)
    transaction = await book.post(debit(BANK, 1), credit(PAYER, 1))
    keys = await later.keys()
    (new_key,) = set(keys) - set(old_keys)

    assert keys[0] == new_key
    assert set(keys) > set(old_keys)
    assert verify_note((await later.checkpoint()).note, [new_key]).tree_size == 2
    assert verify_note(before.note, old_keys).tree_size == 1
    assert is_proved(await later.inclusion(transaction.transaction_id), [new_key])
    assert await later.faults(before.note) == []
    await ledger.stop("ledger")
    await ledger.start("ledger")


@pytest.mark.parametrize("name", ["missing.jwk", ""])
async def test_a_service_without_its_key_says_so_in_one_line(ledger: TestMesh, tmp_path: Path, name: str) -> None:
    await ledger.stop("ledger")
    with pytest.raises(SystemExit, match=r"^KENTE_LEDGER_CHECKPOINT_KEY_FILE: .*kente identities"):
        await ledger.start("ledger", checkpoint_key_file=tmp_path / name if name else None)
    await ledger.start("ledger")


async def test_a_stream_that_its_reader_leaves_does_no_harm(auditor: Auditor, open_book: Book) -> None:
    await fill_many(open_book, 3_000)
    call = auditor.stub.VerifyBooks(pb2.VerifyBooksRequest())
    await call.read()
    call.cancel()

    assert call.cancelled()
    answers = [part async for part in auditor.stub.ExportRecords(pb2.ExportRecordsRequest(start_leaf_index=2_999))]
    assert sum(len(part.records) for part in answers) == 1


def test_kinds_of_the_record_are_those_of_the_contract() -> None:
    names = {name.removeprefix("KIND_").lower() for name in ledger_pb2.Transaction.Kind.DESCRIPTOR.values_by_name}

    assert names - {"unspecified"} == {"posting", "hold", "hold_posting", "hold_void", "hold_expiry", "reversal"}
