"""What the ledger should answer, said as plainly as possible: all history is kept, and every sum is made anew from it.

Shares no code with the service but its vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

INT64_MAX = 2**63 - 1
DEBIT_NORMAL = {"asset", "expense"}


@dataclass(frozen=True)
class OracleLeg:
    """Account, "debit" or "credit", minor units, currency."""

    account: str
    side: str
    amount: int
    currency: str


@dataclass
class OracleAccount:
    """What is known of an account beside its history."""

    type: str
    currency: str
    state: str = "opened"


@dataclass
class Oracle:
    """One tenant's book."""

    accounts: dict[str, OracleAccount] = field(default_factory=dict)
    history: list[OracleLeg] = field(default_factory=list)
    booked: dict[str, list[OracleLeg]] = field(default_factory=dict)

    def refusal(self, legs: list[OracleLeg]) -> str:
        """Reason for which a new posting must be refused; "" when it must be booked."""
        for currency in {leg.currency for leg in legs}:
            of_currency = [leg for leg in legs if leg.currency == currency]
            if sum(leg.amount if leg.side == "debit" else -leg.amount for leg in of_currency):
                return "TRANSACTION_UNBALANCED"
        for number, leg in enumerate(legs, start=1):
            account = self.accounts.get(leg.account)
            if account is None:
                return "ACCOUNT_NOT_FOUND"
            if account.state != "opened":
                return "ACCOUNT_NOT_OPEN"
            if account.currency != leg.currency:
                return "ACCOUNT_CURRENCY_MISMATCH"
            if self.total(leg.account, leg.side, [*self.history, *legs[:number]]) > INT64_MAX:
                return "BALANCE_OVERFLOW"
        return ""

    def post(self, transaction_id: str, legs: list[OracleLeg]) -> list[int]:
        """Books a posting; returns the balance after each leg."""
        self.booked[transaction_id] = legs
        balances = []
        for leg in legs:
            self.history.append(leg)
            balances.append(self.balance(leg.account))
        return balances

    def balance(self, account: str) -> int:
        """Balance on the normal side."""
        difference = self.total(account, "debit", self.history) - self.total(account, "credit", self.history)
        return difference if self.accounts[account].type in DEBIT_NORMAL else -difference

    @staticmethod
    def total(account: str, side: str, history: list[OracleLeg]) -> int:
        """Sum of one side of an account."""
        return sum(leg.amount for leg in history if leg.account == account and leg.side == side)
