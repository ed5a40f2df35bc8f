"""Checks neighbouring transactions of a tenant's books, by their rows alone. No I/O."""

from __future__ import annotations

from services.ledger.model.checkpoints import NoteError, VerifierKey, verify_note
from services.ledger.model.copied_rows import (
    CopiedEntry,
    CopiedTransaction,
    copied_entries,
    copied_transactions,
    record_of,
)
from services.ledger.model.merkle import HASH_BYTES, Tree, leaf_hash
from services.ledger.model.verification import (
    FAULTS_MAX,
    CheckpointRow,
    Fault,
    InnerRoot,
    Movement,
    Part,
    PartReport,
)

_HOLD = b"hold"
# Stands for the leaf of a row that is missing, so that all after it keep their places.
_NO_LEAF = bytes(HASH_BYTES)
BLOCK_LEAVES = 256


def check_part(part: Part) -> PartReport:
    """Checks one part. What connects it with those before and after is for who puts the reports together."""
    return _PartCheck(part).run()


class _PartCheck:
    def __init__(self, part: Part) -> None:
        self._part = part
        self._report = PartReport(part.start_leaf, part.end_leaf)
        self._rows = copied_entries(part.entries)
        self._row = next(self._rows, None)
        self._movements: dict[int, _Sums] = {}
        # Of each leaf of the part.
        self._hashes: list[bytes] = []
        self._times: list[int] = []
        self._end_sequences: list[int] = []

    def run(self) -> PartReport:
        report = self._report
        for transaction in copied_transactions(self._part.tenant_id, self._part.transactions):
            self._miss_until(transaction.leaf_index)
            if not report.transaction_count:
                report.first_sequence, report.first_time = transaction.first_sequence, transaction.create_time
            elif transaction.first_sequence != report.end_sequence:
                self._fault("sequence", f"begins at entry {transaction.first_sequence}", transaction)
            if report.last_time > transaction.create_time:
                self._fault("time", "was booked before the transaction before it", transaction)
            report.transaction_count += 1
            report.last_time = transaction.create_time
            report.end_sequence = transaction.first_sequence + transaction.entry_count
            self._check_transaction(transaction, self._take_entries(transaction))
            self._hashes.append(transaction.leaf_hash if len(transaction.leaf_hash) == HASH_BYTES else _NO_LEAF)
            self._times.append(transaction.create_time)
            self._end_sequences.append(report.end_sequence)
        self._miss_until(self._part.end_leaf)
        while self._row is not None:
            self._skip(self._row)
        report.movements = [sums.movement(key) for key, sums in self._movements.items()]
        self._check_tree()
        return report

    def _fault(
        self, check: str, detail: str, transaction: CopiedTransaction | None = None, account: bytes = b""
    ) -> None:
        if len(self._report.faults) < FAULTS_MAX:
            id_ = transaction.transaction_id.decode(errors="replace") if transaction else ""
            self._report.faults.append(Fault(check, detail, id_, account.decode(errors="replace")))

    def _miss_until(self, leaf_index: int) -> None:
        while self._part.start_leaf + len(self._hashes) < leaf_index:
            self._fault("sequence", f"the transaction at leaf {self._part.start_leaf + len(self._hashes)} is missing")
            self._hashes.append(_NO_LEAF)
            self._times.append(self._report.last_time)
            self._end_sequences.append(self._report.end_sequence)

    def _skip(self, row: CopiedEntry) -> None:
        self._fault("sequence", f"entry {row.sequence} belongs to no transaction", account=row.account_name)
        self._row = next(self._rows, None)
        self._report.entry_count += 1

    def _take_entries(self, transaction: CopiedTransaction) -> list[CopiedEntry]:
        """The entries with the transaction's numbers."""
        row, end_sequence = self._row, transaction.first_sequence + transaction.entry_count
        while row is not None and row.sequence < transaction.first_sequence:
            self._skip(row)
            row = self._row
        own: list[CopiedEntry] = []
        while row is not None and row.sequence < end_sequence:
            own.append(row)
            row = next(self._rows, None)
        self._row = row
        self._report.entry_count += len(own)
        return own

    def _check_transaction(self, transaction: CopiedTransaction, own: list[CopiedEntry]) -> None:
        if leaf_hash(record_of(transaction, own)) != transaction.leaf_hash:
            self._fault("record", "is not what was booked: its record has another hash than its leaf", transaction)
        if len(own) != transaction.entry_count:
            self._fault("sequence", f"has {len(own)} of {transaction.entry_count} entries", transaction)
        is_hold = transaction.kind == _HOLD
        self._report.hold_count += is_hold
        self._check_entries(transaction, own, is_hold=is_hold)

    def _check_entries(self, transaction: CopiedTransaction, own: list[CopiedEntry], *, is_hold: bool) -> None:
        leaf_index, sequence, time, _, _, _, effective_time, _, _ = transaction
        movements = self._movements
        sums: dict[bytes, int] = {}
        # Taken apart once: to ask a row for each of its values takes longer than to compare them.
        for number, leaf, key, has_debit_side, at, name, pending, signed_minor, currency, after, effective, _ in own:
            if not (number == sequence and leaf == leaf_index and at == time and effective == effective_time):
                self._fault("entry", f"entry {number} is not one of its", transaction, name)
            elif pending is not is_hold:
                self._fault("entry", f"entry {number} is held, or posted, and should not be", transaction, name)
            sequence = number + 1
            sums[currency] = sums.get(currency, 0) + signed_minor
            moved_minor = 0 if pending else signed_minor
            account = movements.get(key)
            if account is None:
                account = movements[key] = self._first(
                    number, name, after - moved_minor if has_debit_side else after + moved_minor
                )
            expected_minor = account.balance_minor + (moved_minor if has_debit_side else -moved_minor)
            if after != expected_minor:
                detail = f"entry {number} leaves {after}, the entries before it make {expected_minor}"
                self._fault("balance", detail, transaction, name)
            account.balance_minor = after
            if moved_minor > 0:
                account.debits_minor += moved_minor
            else:
                account.credits_minor -= moved_minor
        if any(sums.values()):
            wrong = ", ".join(f"{currency.decode()} {sum_}" for currency, sum_ in sorted(sums.items()) if sum_)
            self._fault("sum", f"debits and credits differ by {wrong}", transaction)

    def _first(self, sequence: int, account_name: bytes, before_minor: int) -> _Sums:
        """An account at its first entry in the part."""
        if not account_name:
            self._fault("account", f"the account of entry {sequence} is missing")
        return _Sums(account_name, sequence, before_minor)

    def _check_tree(self) -> None:
        part, report = self._part, self._report
        rows = {row.tree_size: row for row in part.checkpoints}
        keys = {str(key): key for key in map(VerifierKey.parse, part.verifier_keys)}
        tree, done = Tree(), 0
        for tree_size in sorted({*rows, *part.asked_sizes}):
            count = tree_size - part.start_leaf
            growth = tree.grow(self._hashes[done:count])
            tree, done = Tree(growth.size, growth.frontier), count
            report.inner_roots.append(InnerRoot(tree_size, growth.root.hex()))
        whole = Tree().grow(self._hashes)
        report.block_hashes = [node.hash.hex() for node in whole.nodes]
        tail_peaks = (len(self._hashes) % BLOCK_LEAVES).bit_count()
        report.tail_frontier = whole.frontier[len(whole.frontier) - tail_peaks * HASH_BYTES :].hex()
        start = 0
        for row in part.checkpoints:
            self._check_checkpoint(row, start, list(keys.values()))
            start = row.tree_size - part.start_leaf
            report.last_checkpoint_size = row.tree_size
        if part.checkpoints:
            report.first_checkpoint_time = part.checkpoints[0].create_time
        open_times = self._times[start:]
        if open_times:
            report.open_time = open_times[0]
            if len(set(open_times)) > 1:
                self._fault("checkpoint", f"none ends the batch after leaf {part.start_leaf + start}")

    def _check_checkpoint(self, row: CheckpointRow, start: int, keys: list[VerifierKey]) -> None:
        """Checks a row against its note, and against the transactions of its batch that are in this part."""
        part, count = self._part, row.tree_size - self._part.start_leaf
        place = f"of size {row.tree_size}"
        try:
            head = verify_note(row.note, keys)
        except NoteError as error:
            self._fault("signature", f"the checkpoint {place}: {error}")
        else:
            origins = {f"{key.name}/{part.tenant_id}" for key in keys}
            if head.origin not in origins or (head.tree_size, head.root_hash.hex()) != (row.tree_size, row.root_hash):
                self._fault("checkpoint", f"the row {place} and its note say different things")
        if row.last_sequence != self._end_sequences[count - 1] - 1:
            self._fault(
                "checkpoint", f"the one {place} ends at entry {row.last_sequence}, its last transaction does not"
            )
        if set(self._times[start:count]) != {row.create_time}:
            self._fault("checkpoint", f"the one {place} is not of the time of its transactions")
        if not row.event_count:
            self._fault("announcement", f"the batch {place} was announced by no event")


class _Sums:
    """An account within a part."""

    __slots__ = ("account_name", "balance_minor", "before_minor", "credits_minor", "debits_minor", "first_sequence")

    def __init__(self, account_name: bytes, first_sequence: int, before_minor: int) -> None:
        self.account_name = account_name
        self.first_sequence = first_sequence
        self.before_minor = self.balance_minor = before_minor
        self.debits_minor = self.credits_minor = 0

    def movement(self, account_key: int) -> Movement:
        return Movement(
            account_key,
            self.account_name.decode(errors="replace"),
            self.first_sequence,
            self.before_minor,
            self.balance_minor,
            self.debits_minor,
            self.credits_minor,
        )
