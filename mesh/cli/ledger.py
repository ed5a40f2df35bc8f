"""`kente ledger`: double-entry books on the command line."""

import uuid
from datetime import UTC, datetime
from typing import Annotated

import typer
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import ledger_pb2, ledger_service_pb2

from mesh.cli import ledger_checks, ledger_files
from mesh.cli import ledger_view as view
from mesh.cli.ledger_client import PAGE_SIZE, LedgerClient, run
from mesh.cli.ledger_input import (
    LegText,
    parse_amount,
    parse_legs,
    parse_pairs,
    parse_rates,
    parse_time,
    parse_time_from_now,
)
from mesh.cli.ledger_options import (
    AtOption,
    BookedOption,
    BookOption,
    FromOption,
    PresentationOption,
    RateOption,
    TenantOption,
    ToOption,
)
from mesh.cli.options import DEFAULT_STATE_DIR, JsonOption, StateDirOption
from mesh.cli.output import CommandError, console, print_json
from mesh.ids import new_id

app = typer.Typer(help="Double-entry books: post, read, prove and export.", no_args_is_help=True)
app.command("verify")(ledger_checks.verify)
app.command("export")(ledger_files.export)

_TYPES = ("asset", "liability", "equity", "income", "expense")


@app.command()
def accounts(
    prefix: Annotated[str, typer.Argument(help="Only accounts whose name begins so.")] = "",
    *,
    kind: Annotated[str, typer.Option("--type", help=f"Only accounts of a type: {', '.join(_TYPES)}.")] = "",
    tenant: TenantOption = "",
    book: BookOption = "",
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """List accounts with their balances."""
    if kind and kind not in _TYPES:
        raise CommandError(f"--type {kind} is none: use one of {', '.join(_TYPES)}")
    type_ = ledger_pb2.Account.Type.Value(f"TYPE_{kind.upper()}" if kind else "TYPE_UNSPECIFIED")

    async def work(client: LedgerClient) -> None:
        found = [account async for account in client.accounts(prefix, type_)]
        if as_json:
            print_json([view.as_json(account) for account in found])
        else:
            console().print(view.accounts_table(client, found) if found else "no accounts")

    run(state_dir, tenant, book, work)


@app.command()
def post(
    legs: Annotated[list[str], typer.Argument(help="Such as: debit assets:bank 10.50 GHS credit income:sales 10.50")],
    *,
    description: Annotated[str, typer.Option("--description", "-d", help="What happened.")] = "",
    source: Annotated[str, typer.Option("--source", help="Id of what caused it, such as a payment.")] = "",
    metadata: Annotated[list[str] | None, typer.Option("--metadata", help="NAME=VALUE to find it by.")] = None,
    effective: Annotated[str, typer.Option("--effective", help="When it took effect, if that was not now.")] = "",
    hold: Annotated[bool, typer.Option("--hold", help="Hold the amounts instead of posting them.")] = False,
    expires: Annotated[str, typer.Option("--expires", help="When a hold ends by itself: 15m, 2h, or a time.")] = "",
    transaction: Annotated[
        str, typer.Option("--id", help="Id of the transaction, txn_ and 26 characters: it is booked once, ever.")
    ] = "",
    tenant: TenantOption = "",
    book: BookOption = "",
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Post a transaction: all of its legs or none. Amounts are in major units, such as 10.50."""
    if expires and not hold:
        raise CommandError("--expires is for what is held: say --hold too")
    request = ledger_service_pb2.CreateTransactionRequest(
        request_id=str(uuid.uuid4()),
        transaction_id=transaction or new_id("txn"),
        description=description,
        source_id=source,
        effective_time=parse_time(effective, "--effective"),
        book_name=book,
        metadata=parse_pairs(metadata or [], "--metadata"),
        pending=hold,
        expire_time=parse_time_from_now(expires, "--expires", datetime.now(UTC)),
    )
    texts = parse_legs(legs)

    async def work(client: LedgerClient) -> None:
        request.legs.extend([await _leg(client, text) for text in texts])
        answer = await client.ledger.CreateTransaction(request)
        if as_json:
            print_json(view.as_json(answer))
            return
        booked = answer.transaction
        console().print(
            f"[bold green]{'held' if hold else 'posted'}[/] {booked.transaction_id}, leaf {booked.leaf_index},"
            f" {view.time_text(booked.create_time)} UTC",
            soft_wrap=True,
        )
        console().print(view.balances_after_table(client, answer.balances))

    run(state_dir, tenant, book, work)


async def _leg(client: LedgerClient, text: LegText) -> ledger_pb2.Leg:
    account = await client.account(text.account_name)
    # A wrong currency is sent as it is, so that the ledger says what is wrong with it.
    currency = text.currency or account.currency
    amount_minor = parse_amount(text.amount, account.scale, currency)
    return ledger_pb2.Leg(
        account_name=text.account_name,
        side=ledger_pb2.Side.Value(f"SIDE_{text.side.upper()}"),
        amount=Money(amount_minor=amount_minor, currency=currency),
    )


@app.command()
def balance(
    account: Annotated[str, typer.Argument(help="Account. Without one, all balances are listed.")] = "",
    *,
    at: AtOption = "",
    booked: BookedOption = "",
    branch: Annotated[str, typer.Option("--branch", help="Only this part of the hierarchy, such as assets:bank.")] = "",
    depth: Annotated[int, typer.Option("--depth", min=0, max=100, help="Add up to so many parts of the names.")] = 0,
    tenant: TenantOption = "",
    book: BookOption = "",
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show a balance, or all of them, now or as of a time."""
    if account and (branch or depth):
        raise CommandError("--branch and --depth are for lists: leave the account out")
    effective_time, booking_time = parse_time(at, "--at"), parse_time(booked, "--booked")

    async def one(client: LedgerClient) -> None:
        await client.account(account)
        request = ledger_service_pb2.GetBalanceRequest(
            account_name=account, book_name=book, effective_time=effective_time, booking_time=booking_time
        )
        answer = await client.ledger.GetBalance(request)
        if as_json:
            print_json(view.as_json(answer))
        else:
            console().print(view.balance_table(client, account, answer))

    async def all_(client: LedgerClient) -> None:
        request = ledger_service_pb2.ListBalancesRequest(
            page_size=PAGE_SIZE,
            book_name=book,
            branch=branch,
            depth=depth,
            effective_time=effective_time,
            booking_time=booking_time,
        )
        found: list[ledger_pb2.BranchBalance] = []
        while True:
            answer = await client.ledger.ListBalances(request)
            found += answer.balances
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        if as_json:
            print_json([view.as_json(entry) for entry in found])
            return
        await client.learn_scales({entry.balance.currency: entry.branch for entry in found})
        console().print(view.branches_table(client, found) if found else "no balances")

    run(state_dir, tenant, book, one if account else all_)


@app.command()
def statement(
    account: Annotated[str, typer.Argument(help="Account.")],
    *,
    start: FromOption = "",
    end: ToOption = "",
    booked: BookedOption = "",
    tenant: TenantOption = "",
    book: BookOption = "",
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show what happened on an account, with the balance after each entry in the order of effect."""
    request = ledger_service_pb2.GetStatementRequest(
        account_name=account,
        book_name=book,
        page_size=PAGE_SIZE,
        start_time=parse_time(start, "--from"),
        end_time=parse_time(end, "--to"),
        booking_time=parse_time(booked, "--booked"),
    )

    async def work(client: LedgerClient) -> None:
        await client.account(account)
        whole = answer = await client.ledger.GetStatement(request)
        while answer.next_page_token:
            request.page_token = answer.next_page_token
            answer = await client.ledger.GetStatement(request)
            whole.lines.extend(answer.lines)
        whole.ClearField("next_page_token")
        if as_json:
            print_json(view.as_json(whole))
        else:
            console().print(view.statement_table(client, whole))

    run(state_dir, tenant, book, work)


@app.command()
def trial_balance(
    *,
    at: AtOption = "",
    booked: BookedOption = "",
    presentation: PresentationOption = "",
    rate: RateOption = None,
    tenant: TenantOption = "",
    book: BookOption = "",
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show the balances of all accounts, debits beside credits."""
    rates = parse_rates(rate or [], presentation)
    request = ledger_service_pb2.GetTrialBalanceRequest(
        book_name=book,
        effective_time=parse_time(at, "--at"),
        booking_time=parse_time(booked, "--booked"),
        presentation_currency=presentation,
        rates=[ledger_pb2.Rate(currency=currency, rate=text) for currency, text in rates.items()],
    )

    async def work(client: LedgerClient) -> None:
        report = await client.ledger.GetTrialBalance(request)
        if as_json:
            print_json(view.as_json(report))
            return
        await client.learn_scales({line.debit.currency: line.account_name for line in report.lines})
        console().print(view.trial_balance_table(client, report))

    run(state_dir, tenant, book, work)
