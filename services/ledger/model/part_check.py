"""Checks neighbouring transactions of a tenant's books, by their rows alone. No I/O."""

from __future__ import annotations

from services.ledger.model.copied_rows import (
    CopiedEntry,
    CopiedTransaction,
    copied_entries,
    copied_transactions,
    record_of,
)
from services.ledger.model.merkle import HASH_BYTES, leaf_hash
from services.ledger.model.tree_check import Leaves, add_fault, check_tree
from services.ledger.model.verification import Fault, Movement, Part, PartReport

_HOLD = b"hold"
# Stands for the leaf of a row that is missing, so that all after it keep their places.
_NO_LEAF = bytes(HASH_BYTES)


def check_part(part: Part) -> PartReport:
    """Checks one part. What connects it with those before and after is for who puts the reports together."""
    return _PartCheck(part).run()


class _PartCheck:
    def __init__(self, part: Part) -> None:
        self._part = part
        self._report = PartReport(part.span.start_leaf, part.span.end_leaf)
        self._rows = copied_entries(part.entries)
        self._row = next(self._rows, None)
        self._movements: dict[int, _Sums] = {}
        self._leaves = Leaves()

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
            hash_ = transaction.leaf_hash if len(transaction.leaf_hash) == HASH_BYTES else _NO_LEAF
            self._leaves.add(hash_, transaction.create_time, report.end_sequence)
        self._miss_until(self._part.span.end_leaf)
        while self._row is not None:
            self._skip(self._row)
        report.movements = [sums.movement(key) for key, sums in self._movements.items()]
        check_tree(self._part, self._leaves, report)
        return report

    def _fault(
        self, check: str, detail: str, transaction: CopiedTransaction | None = None, account: bytes = b""
    ) -> None:
        id_ = transaction.transaction_id.decode(errors="replace") if transaction else ""
        add_fault(self._report, Fault(check, detail, id_, account.decode(errors="replace")))

    def _miss_until(self, leaf_index: int) -> None:
        for missing in range(self._part.span.start_leaf + len(self._leaves.hashes), leaf_index):
            self._fault("sequence", f"the transaction at leaf {missing} is missing")
            self._leaves.add(_NO_LEAF, self._report.last_time, self._report.end_sequence)

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


class _Sums:
    """An account within a part."""

    __slots__ = ("account_name", "balance_minor", "before_minor", "credits_minor", "debits_minor", "first_sequence")

    def __init__(self, account_name: bytes, first_sequence: int, before_minor: int) -> None:
        self.account_name = account_name
        self.first_sequence = first_sequence
        self.before_minor = self.balance_minor = before_minor
        self.debits_minor = self.credits_minor = 0

    def movement(self, account_key: int) -> Movement:
        return (
            account_key,
            self.account_name.decode(errors="replace"),
            self.first_sequence,
            self.before_minor,
            self.balance_minor,
            self.debits_minor,
            self.credits_minor,
        )
