"""How `kente ledger` shows what the ledger says. Amounts are in major units."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2, proof_service_pb2
from rich.table import Table

from mesh.cli.ledger_client import LedgerClient


def as_json(message: Message) -> dict[str, Any]:
    """A message for scripts, which find every field there, also those that are zero."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def type_name(type_: ledger_pb2.Account.Type.ValueType) -> str:
    """A type of accounts, such as "asset"."""
    return ledger_pb2.Account.Type.Name(type_).removeprefix("TYPE_").lower()


def time_text(timestamp: Timestamp) -> str:
    """A time in UTC, to the millisecond."""
    return timestamp.ToDatetime(tzinfo=UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def accounts_table(client: LedgerClient, accounts: Sequence[ledger_pb2.Account]) -> Table:
    """Accounts with what is on them."""
    table = _table("account", "type", "=balance", "=available", "=held", "currency", "state")
    for account in accounts:
        held_minor = max(account.pending_debits.amount_minor, account.pending_credits.amount_minor)
        state = ledger_pb2.Account.State.Name(account.state).removeprefix("STATE_").lower()
        table.add_row(
            account.account_name + (f" [dim]{account.account_number}[/]" if account.account_number else ""),
            type_name(account.type),
            client.amount(account.balance),
            client.amount(account.available) if account.HasField("available") else "",
            client.amount_of(held_minor, account.currency) if held_minor else "",
            account.currency,
            state if account.state == ledger_pb2.Account.STATE_OPENED else f"[yellow]{state}[/]",
        )
    return table


def balances_after_table(client: LedgerClient, balances: Sequence[ledger_pb2.AccountBalance]) -> Table:
    """Balances that a transaction left."""
    table = _table("account", "=balance", "=available", "currency")
    for balance in balances:
        currency = balance.balance.currency
        has_available = balance.HasField("available_minor")
        available = client.amount_of(balance.available_minor, currency) if has_available else ""
        table.add_row(balance.account_name, client.amount(balance.balance), available, currency)
    return table


def balance_table(client: LedgerClient, account_name: str, answer: ledger_service_pb2.GetBalanceResponse) -> Table:
    """One balance and what it is made of."""
    table = Table(account_name, answer.balance.currency, box=None, header_style="bold")
    table.columns[1].justify = "right"
    table.add_row("balance", f"[bold]{client.amount(answer.balance)}[/]")
    table.add_row("debits", client.amount(answer.debits))
    table.add_row("credits", client.amount(answer.credits))
    if answer.pending_debits.amount_minor or answer.pending_credits.amount_minor:
        table.add_row("held debits", client.amount(answer.pending_debits))
        table.add_row("held credits", client.amount(answer.pending_credits))
    if answer.HasField("available"):
        table.add_row("available", client.amount(answer.available))
    return table


def branches_table(client: LedgerClient, balances: Sequence[ledger_pb2.BranchBalance]) -> Table:
    """Balances of accounts, or of branches of accounts."""
    table = _table("branch", "type", "=accounts", "=balance", "currency")
    for balance in balances:
        amount = client.amount(balance.balance)
        name, type_ = balance.branch, type_name(balance.type)
        table.add_row(name, type_, str(balance.account_count), amount, balance.balance.currency)
    return table


def statement_table(client: LedgerClient, statement: ledger_service_pb2.GetStatementResponse) -> Table:
    """Opening balance, entries with the balance after each, and closing balance."""
    table = _table("time of effect", "transaction", "description", "=debit", "=credit", "=balance")
    table.title = f"{statement.account.account_name}, {statement.account.currency}"
    table.add_row("", "", "[bold]opening balance[/]", "", "", f"[bold]{client.amount(statement.opening_balance)}[/]")
    for line in statement.lines:
        amount = client.amount(line.entry.amount)
        is_debit = line.entry.side == ledger_pb2.SIDE_DEBIT
        table.add_row(
            time_text(line.entry.effective_time),
            line.entry.transaction_id,
            _plain(line.description),
            amount if is_debit else "",
            "" if is_debit else amount,
            client.amount(line.running_balance),
        )
    debits, credits_ = client.amount(statement.debits), client.amount(statement.credits)
    closing = f"[bold]{client.amount(statement.closing_balance)}[/]"
    table.add_row("", "", "[bold]closing balance[/]", debits, credits_, closing)
    return table


def trial_balance_table(client: LedgerClient, report: ledger_service_pb2.GetTrialBalanceResponse) -> Table:
    """Debits beside credits, with a total for each currency."""
    is_presented = any(line.HasField("presented") for line in report.lines)
    table = _table("account", "=debit", "=credit", "currency", *(["=presented"] if is_presented else []))
    for line in report.lines:
        row = [line.account_name, client.amount(line.debit), client.amount(line.credit), line.debit.currency]
        if is_presented:
            row.append(f"{client.amount(line.presented)} {line.presented.currency}")
        table.add_row(*row)
    table.add_section()
    for total in report.totals:
        row = ["[bold]total[/]", client.amount(total.debit), client.amount(total.credit), total.debit.currency]
        if is_presented:
            row.append(f"{client.amount(total.presented)} {total.presented.currency}")
        table.add_row(*row)
    return table


def faults_table(faults: Sequence[proof_service_pb2.BookFault]) -> Table:
    """What is wrong in the books."""
    table = Table("check", "what is wrong", "where", header_style="bold red")
    for fault in faults:
        where = "\n".join(name for name in (fault.transaction_id, fault.account_name) if name)
        table.add_row(fault.check, _plain(fault.detail), where)
    return table


def _table(*headings: str) -> Table:
    """A table; columns whose heading begins with "=" hold amounts."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        is_amount = heading.startswith("=")
        # What people compare and copy is never cut.
        table.add_column(heading.removeprefix("="), justify="right" if is_amount else "left", overflow="fold")
    return table


def _plain(text: str) -> str:
    """A text of somebody's, with nothing in it that the terminal would act on."""
    shown = "".join(character if character.isprintable() else "�" for character in text)
    return shown.replace("[", "\\[")
