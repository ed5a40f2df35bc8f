"""What clients ask for: transfers between accounts chosen uniformly, by Zipf's law, or around one of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

CURRENCY = "GHS"
AMOUNT_MINOR = 100
UNIFORM, ZIPF, HOT = "uniform", "zipf", "hot"
DISTRIBUTIONS = (UNIFORM, ZIPF, HOT)
_ZIPF_EXPONENT = 1.01
_PREPARED = 100_000
_RANDOM_SEED = 20_261_121


def account_name(number: int) -> str:
    """Name of an account, numbered from 0."""
    return f"liabilities:bench:{number:06d}"


@dataclass(frozen=True, slots=True)
class Pair:
    """Whom to debit and whom to credit, by number."""

    debit: int
    credit: int


def pairs(distribution: str, account_count: int) -> list[Pair]:
    """Pairs of different accounts. The choice is made before anything is measured, and is the same in every run."""
    chance = random.Random(_RANDOM_SEED)
    numbers = range(account_count)
    if distribution == HOT:
        return [Pair(number, 0) for number in chance.choices(numbers[1:], k=_PREPARED)]
    weights = [1.0] * account_count
    if distribution == ZIPF:
        weights = [1 / (rank + 1) ** _ZIPF_EXPONENT for rank in numbers]
    cumulative = list(itertools.accumulate(weights))
    debited = chance.choices(numbers, cum_weights=cumulative, k=_PREPARED)
    credited = chance.choices(numbers, cum_weights=cumulative, k=_PREPARED)
    return [
        Pair(debit, credit if credit != debit else (debit + 1) % account_count)
        for debit, credit in zip(debited, credited, strict=True)
    ]


class Traffic:
    """Requests with ids that never repeat, and that rise, as those of Kente's own clients do."""

    def __init__(self, distribution: str, account_count: int, run: str) -> None:
        """Prepares the choice of accounts.

        Args:
            run: eight hexadecimal digits that no other traffic of this database has.
        """
        self._pairs = itertools.cycle(pairs(distribution, account_count))
        self._numbers = itertools.count()
        self._run = run

    def _ids(self) -> Iterator[str]:
        while True:
            yield f"txn_{self._run}{next(self._numbers):018d}"

    def _request_id(self) -> str:
        return f"{self._run}-0000-7000-8000-{next(self._numbers):012x}"

    def single(self) -> ledger_service_pb2.CreateTransactionRequest:
        """A posting with two legs."""
        pair = next(self._pairs)
        amount = Money(amount_minor=AMOUNT_MINOR, currency=CURRENCY)
        return ledger_service_pb2.CreateTransactionRequest(
            request_id=self._request_id(),
            transaction_id=next(self._ids()),
            legs=[
                ledger_pb2.Leg(account_name=account_name(number), side=side, amount=amount)
                for number, side in ((pair.debit, ledger_pb2.SIDE_DEBIT), (pair.credit, ledger_pb2.SIDE_CREDIT))
            ],
        )

    def batch(self, size: int) -> ledger_service_pb2.CreateTransfersRequest:
        """Many transfers in one request."""
        amount = Money(amount_minor=AMOUNT_MINOR, currency=CURRENCY)
        return ledger_service_pb2.CreateTransfersRequest(
            request_id=self._request_id(),
            transfers=[
                ledger_pb2.Transfer(
                    transaction_id=transaction_id,
                    debit_account_name=account_name(pair.debit),
                    credit_account_name=account_name(pair.credit),
                    amount=amount,
                )
                for transaction_id, pair in zip(self._ids(), itertools.islice(self._pairs, size), strict=False)
            ],
        )

    def arrays(self, size: int) -> tuple[list[int], list[int], list[int]]:
        """The same as a batch, as columns: debited, credited, amounts in minor units."""
        chosen = list(itertools.islice(self._pairs, size))
        return [pair.debit for pair in chosen], [pair.credit for pair in chosen], [AMOUNT_MINOR] * size
