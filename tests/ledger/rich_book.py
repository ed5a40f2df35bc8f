"""A book with some of everything, made by chance from a seed: what exports must cope with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from mesh.ids import new_id
from tests.ledger.book import Book, credit, debit, new_request_id

ASSET, LIABILITY = ledger_pb2.Account.TYPE_ASSET, ledger_pb2.Account.TYPE_LIABILITY
EQUITY, INCOME, EXPENSE = (
    ledger_pb2.Account.TYPE_EQUITY,
    ledger_pb2.Account.TYPE_INCOME,
    ledger_pb2.Account.TYPE_EXPENSE,
)
# Texts that mean something to a spreadsheet, to hledger or to beancount.
TEXTS = (
    "",
    "Rent",
    '=HYPERLINK("http://example.test","pay")',
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "'quoted",
    "\t=1",
    "\r\n=1",
    "a, b; c:d | e",
    '"quoted" \\ back\\nslash',
    "2024-01-01 * fake\n    assets:bank  1.00 GHS",
    "tag:value, date:2019-01-01, type:L",
    "[2020-01-01] %41 %",
    " spaces  around ",
    "ünï \u2028 \x85 \x01 \u202e ﷽ 💸",
)
NAMES = ("invoice", "date", "type", "a.b", "a-b", "a_b", "-", "1")


@dataclass(frozen=True)
class Chart:
    """Accounts of one currency: any two of them can give to each other."""

    currency: str
    scale: int | None
    accounts: Sequence[tuple[str, ledger_pb2.Account.Type.ValueType]]


CHARTS = (
    Chart(
        "GHS",
        None,
        (
            ("assets:bank", ASSET),
            ("assets:mtn_momo:ghs", ASSET),
            # In beancount these are one name.
            ("assets:mtn-momo:ghs", ASSET),
            ("assets:mtn.momo:ghs", ASSET),
            ("assets", ASSET),
            ("bank", ASSET),
            ("liabilities:2024:payer", LIABILITY),
            ("income:fees", INCOME),
            ("revenue:fees", INCOME),
            ("expenses:9-lives_", EXPENSE),
            ("equity:fx:ghs", EQUITY),
        ),
    ),
    Chart("USD", None, (("assets:usd", ASSET), ("equity:fx:usd", EQUITY), ("income:usd", INCOME))),
    Chart("JPY", None, (("assets:jpy", ASSET), ("equity:fx:jpy", EQUITY))),
    Chart("BHD", None, (("assets:bhd", ASSET), ("equity:fx:bhd", EQUITY))),
    Chart("T0KEN9", 18, (("assets:token", ASSET), ("equity:token", EQUITY))),
)


class RichBook:
    """Fills a book by chance; the same seed gives the same book, but for ids and times of booking."""

    def __init__(self, book: Book, seed: int) -> None:
        self._book = book
        self._random = random.Random(seed)
        self._now = datetime.now(UTC)

    async def fill(self, transactions: int) -> None:
        """Creates the accounts and books so many transactions, and some that follow from them."""
        for chart in CHARTS:
            for account_name, type_ in chart.accounts:
                await self._book.stub.CreateAccount(
                    ledger_service_pb2.CreateAccountRequest(
                        request_id=new_request_id(),
                        account_name=account_name,
                        type=type_,
                        currency=chart.currency,
                        scale=chart.scale,
                        display_name=self._text()[:100],
                        metadata=self._metadata(),
                    )
                )
        for _ in range(transactions):
            booked = await self._post()
            if booked.kind == ledger_pb2.Transaction.KIND_HOLD:
                await self._end(booked)
            elif self._random.random() < 0.1:
                await self._reverse(booked)

    async def _post(self) -> ledger_pb2.Transaction:
        charts = self._random.sample(CHARTS, self._random.choice((1, 1, 2, 3)))
        legs = [leg for chart in charts for leg in self._legs(chart)]
        self._random.shuffle(legs)
        is_hold = self._random.random() < 0.2
        return await self._book.post(
            *legs,
            description=self._text(),
            source_id=self._text()[:64],
            metadata=self._metadata(),
            effective_time=self._effective_time(),
            pending=is_hold,
        )

    def _legs(self, chart: Chart) -> list[ledger_pb2.Leg]:
        """Legs that balance, with amounts from the smallest to some that no double holds."""
        names = [name for name, _ in chart.accounts]
        amounts = [self._random.choice((1, 99, 1_050, 123_456_789, 10**15 + 7)) for _ in range(2)]
        legs = [debit(self._random.choice(names), amount, chart.currency) for amount in amounts]
        legs.append(credit(self._random.choice(names), sum(amounts), chart.currency))
        return legs

    async def _end(self, hold: ledger_pb2.Transaction) -> None:
        request_id, transaction_id = new_request_id(), new_id("txn")
        match self._random.randrange(3):
            case 0:
                await self._book.stub.PostHold(
                    ledger_service_pb2.PostHoldRequest(
                        request_id=request_id,
                        transaction_id=transaction_id,
                        hold_transaction_id=hold.transaction_id,
                        description=self._text(),
                    )
                )
            case 1:
                await self._book.stub.VoidHold(
                    ledger_service_pb2.VoidHoldRequest(
                        request_id=request_id,
                        transaction_id=transaction_id,
                        hold_transaction_id=hold.transaction_id,
                    )
                )
            case _:
                return

    async def _reverse(self, transaction: ledger_pb2.Transaction) -> None:
        await self._book.stub.ReverseTransaction(
            ledger_service_pb2.ReverseTransactionRequest(
                request_id=new_request_id(),
                transaction_id=new_id("txn"),
                reversed_transaction_id=transaction.transaction_id,
                description=self._text(),
            )
        )

    def _text(self) -> str:
        return self._random.choice(TEXTS)

    def _metadata(self) -> dict[str, str]:
        return {name: self._text() for name in self._random.sample(NAMES, self._random.randrange(4))}

    def _effective_time(self) -> Timestamp | None:
        if self._random.random() < 0.5:
            return None
        timestamp = Timestamp()
        timestamp.FromDatetime(self._now - timedelta(seconds=self._random.randrange(400 * 86_400)))
        return timestamp


async def read_balances(book: Book) -> dict[str, tuple[int, int]]:
    """Balance of every account with debits above zero, in minor units, and its scale, by name."""
    request = ledger_service_pb2.ListAccountsRequest(page_size=200)
    accounts = (await book.stub.ListAccounts(request)).accounts
    return {
        account.account_name: (account.debits.amount_minor - account.credits.amount_minor, account.scale)
        for account in accounts
    }
