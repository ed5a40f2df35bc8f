"""The demo's proof is checked by the program that auditors have: what was changed is found, whatever was changed."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.cli.demo_proof import ProofFiles, facts_of, verify
from mesh.cli.demo_report import Check, Report, Scenario
from mesh.ids import new_id
from services.ledger.model.accounts import Side
from services.ledger.model.checkpoints import CheckpointSigner
from services.ledger.model.merkle import Tree, leaf_hash
from services.ledger.model.postings import Entry, Kind, Transaction
from services.ledger.model.records import encode_record

ACCOUNTS = ("assets:bank:ghs", "liabilities:merchant:ghs")


@dataclass(frozen=True, slots=True)
class Log:
    """A tenant's book of three transactions."""

    tenant_id: str
    transactions: list[Transaction]
    signer: CheckpointSigner

    def proof(self, leaf_index: int) -> dict[str, Any]:
        """As the gateway answers."""
        records = [encode_record(self.tenant_id, transaction) for transaction in self.transactions]
        growth = Tree().grow([leaf_hash(record) for record in records])
        note = self.signer.sign(self.signer.origin_of(self.tenant_id), growth.size, growth.root)
        proof: dict[str, Any] = {
            "record": text_of(records[leaf_index]),
            "path": [text_of(hash_) for hash_ in growth.inclusion_path(leaf_index)],
            "checkpoint": {"treeSize": str(growth.size), "rootHash": text_of(growth.root), "note": note},
        }
        return proof | ({"leafIndex": str(leaf_index)} if leaf_index else {})


@pytest.fixture
def log() -> Log:
    """Payments of GHS 10.50 each."""
    return Log(new_id("ten"), [payment(n) for n in range(3)], CheckpointSigner("log", Ed25519PrivateKey.generate()))


def payment(number: int) -> Transaction:
    """The transaction at a leaf."""
    entries = tuple(
        Entry(2 * number + offset, account, side, False, 1050, "GHS", 1050 * (number + 1))  # noqa: FBT003 - posted
        for offset, account, side in zip((1, 2), ACCOUNTS, (Side.DEBIT, Side.CREDIT), strict=True)
    )
    return Transaction(
        transaction_id=new_id("txn"),
        kind=Kind.POSTING,
        book_name="main",
        leaf_index=number,
        first_sequence=2 * number + 1,
        entries=entries,
        description="Payment",
        source_id="pay",
        metadata={},
        effective_time=None,
        expire_time=None,
        related_id="",
        create_time=datetime(2026, 11, 21, tzinfo=UTC),
    )


def text_of(data: bytes) -> str:
    """Bytes in proto JSON."""
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("leaf_index", [0, 1, 2])
async def test_a_proof_holds_and_a_changed_one_is_found_wrong(log: Log, tmp_path: Path, leaf_index: int) -> None:
    transaction_id = log.transactions[leaf_index].transaction_id
    proof = log.proof(leaf_index)
    files = ProofFiles.write(tmp_path / "proofs", transaction_id, proof, [log.signer.verifier_key])

    right, changed = await verify(files), await verify(files.changed())
    facts = facts_of(transaction_id, proof, files)

    assert (right.holds, right.is_wrong, right.is_about(transaction_id, log.tenant_id)) == (True, False, True)
    assert not right.is_about(new_id("txn"), log.tenant_id)
    assert (changed.holds, changed.is_wrong) == (False, True)
    assert (facts["leafIndex"], facts["treeSize"], facts["signedBy"]) == (str(leaf_index), "3", log.signer.verifier_key)


async def test_a_changed_path_or_head_is_found_wrong(log: Log, tmp_path: Path) -> None:
    proof = log.proof(1)
    for name, changed in {
        "path": proof | {"path": list(reversed(proof["path"]))},
        "leaf": proof | {"leafIndex": "2"},
        "size": proof
        | {"checkpoint": proof["checkpoint"] | {"note": proof["checkpoint"]["note"].replace("\n3\n", "\n4\n")}},
    }.items():
        verdict = await verify(ProofFiles.write(tmp_path, name, changed, [log.signer.verifier_key]))

        assert (name, verdict.holds, verdict.is_wrong) == (name, False, True), verdict.told


async def test_a_proof_that_another_key_signed_does_not_hold(log: Log, tmp_path: Path) -> None:
    stranger = CheckpointSigner("log", Ed25519PrivateKey.generate())

    verdict = await verify(ProofFiles.write(tmp_path, "proof", log.proof(0), [stranger.verifier_key]))

    assert not verdict.holds


def test_the_files_are_the_owners_alone(log: Log, tmp_path: Path) -> None:
    files = ProofFiles.write(tmp_path / "proofs", "proof", log.proof(0), [log.signer.verifier_key])

    assert json.loads(files.proof.read_text()) == log.proof(0)
    assert files.proof.stat().st_mode & 0o077 == 0


def test_a_demo_whose_proof_fails_is_not_well() -> None:
    scenario = Scenario("approved", "A payment")
    scenario.checks += [Check("the payment succeeded", is_so=True), Check("the proof holds offline", is_so=False)]

    assert not Report([scenario], 1.0).is_well
