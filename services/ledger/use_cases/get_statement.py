"""Reads what happened on an account in a period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from mesh import pages
from mesh.database import Connection, Database
from mesh.errors import Problem, Reason
from services.ledger.model.accounts import Account, Side
from services.ledger.model.reading import BookedEntry, Period, Statement, StatementLine
from services.ledger.repository.accounts import find_account
from services.ledger.repository.balances import Cut, cut_of, find_balances
from services.ledger.repository.journals import Journal, find_journal
from services.ledger.repository.positions import Position, find_position, position_at
from services.ledger.repository.statements import Place, cut_after, cut_before_all, list_statement, sum_statement
from services.ledger.use_cases.check_kept import check_kept
from services.ledger.use_cases.get_account import account_not_found
from services.ledger.use_cases.places import micros_of, number_in, time_in


async def get_statement(
    database: Database,
    *,
    tenant_id: str,
    book_name: str,
    account_name: str,
    period: Period,
    booking_time: datetime | None,
    page_size: int,
    page_token: str,
) -> tuple[Statement, str]:
    """A page of the statement, and the token of the next page ("" on the last).

    All pages tell of what was booked when the first was read, whatever is booked meanwhile.

    Raises:
        Problem: RESOURCE_NOT_FOUND; PAGE_TOKEN_INVALID; FIELD_INVALID, the beginning is archived.
    """
    limit = pages.page_size(page_size)
    arguments = {
        "list": "statement",
        "tenant_id": tenant_id,
        "book_name": book_name,
        "account_name": account_name,
        "period": repr(period),
        "booking_time": repr(booking_time),
    }
    place = pages.decode_page_token(page_token, arguments)
    async with database.transaction(tenant_id) as connection:
        journal = await find_journal(connection, tenant_id)
        account = await find_account(connection, tenant_id, book_name, account_name)
        if journal is None or account is None:
            raise account_not_found(book_name, account_name)
        known = await _known(connection, journal, booking_time, place)
        opening = await _opening(connection, journal, known, period)
        await check_kept(connection, journal, opening, "start_time")
        closing = await cut_of(connection, journal, known, period.last_time)
        after = opening
        if place is not None:
            end = Place(time_in(place, "effect_micros"), number_in(place, "sequence"))
            after = await cut_after(connection, journal, known, end)
        found = await list_statement(connection, account.account_key, after=after, until=closing, limit=limit + 1)
        opening_minor = await _balance(connection, account, opening)
        closing_minor = await _balance(connection, account, closing)
        running_minor = opening_minor if place is None else await _balance(connection, account, after)
        if place is None:
            debits_minor = (
                await sum_statement(connection, account.account_key, after=opening, until=closing)
            ).debits_minor
        else:
            # A long period is added up once, and not for every page of it.
            debits_minor = number_in(place, "debits_minor")
    grown_minor = closing_minor - opening_minor
    credits_minor = debits_minor - (grown_minor if account.type.normal_side is Side.DEBIT else -grown_minor)
    lines = _lines(account, found[:limit], running_minor)
    statement = Statement(account, opening_minor, closing_minor, debits_minor, credits_minor, lines)
    if len(found) <= limit:
        return statement, ""
    last = lines[-1].booked
    token = {
        "tree_size": known.tree_size,
        "effect_micros": micros_of(last.effective_time or last.create_time),
        "sequence": last.entry.sequence,
        "debits_minor": debits_minor,
    }
    return statement, pages.encode_page_token(token, arguments)


async def _known(
    connection: Connection, journal: Journal, booking_time: datetime | None, place: Mapping[str, str | int] | None
) -> Position:
    """What the statement knows: as of the booking time, and on later pages what the first page knew."""
    if place is None:
        return await position_at(connection, journal, booking_time)
    known = await find_position(connection, journal, number_in(place, "tree_size"))
    if known is None:
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list")
    return known


async def _opening(connection: Connection, journal: Journal, known: Position, period: Period) -> Cut:
    if period.last_time_before is None:
        return cut_before_all(known)
    return await cut_of(connection, journal, known, period.last_time_before)


async def _balance(connection: Connection, account: Account, cut: Cut) -> int:
    return (await find_balances(connection, [account], cut))[account.account_key]


def _lines(account: Account, booked: Sequence[BookedEntry], running_minor: int) -> tuple[StatementLine, ...]:
    lines = []
    for line in booked:
        grows = line.entry.side is account.type.normal_side
        running_minor += line.entry.amount_minor if grows else -line.entry.amount_minor
        lines.append(StatementLine(line, running_minor))
    return tuple(lines)
