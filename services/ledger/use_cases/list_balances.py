"""Lists balances of accounts and of branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mesh import pages
from mesh.database import Connection, Database
from services.ledger.model.reading import BranchBalance, Moment
from services.ledger.model.reports import fitting_minor
from services.ledger.repository.balances import NO_SUMS, cut_at, find_sums
from services.ledger.repository.branches import Branch, BranchPlace, list_branches
from services.ledger.repository.journals import Journal, find_journal
from services.ledger.use_cases.check_kept import check_kept
from services.ledger.use_cases.places import text_in


async def list_balances(
    database: Database,
    *,
    tenant_id: str,
    book_name: str,
    branch: str,
    depth: int,
    moment: Moment,
    page_size: int,
    page_token: str,
) -> tuple[list[BranchBalance], str]:
    """A page of balances by name, type and currency, and the token of the next page ("" on the last).

    Args:
        branch: only the account of that name and those below it; "" means all.
        depth: how many parts of the names to roll up to; 0 means each account by itself.

    Raises:
        Problem: PAGE_TOKEN_INVALID; BALANCE_OVERFLOW, a sum does not fit in 64 bits; FIELD_INVALID, the moment is
            archived.
    """
    limit = pages.page_size(page_size)
    arguments: dict[str, str | int] = {
        "list": "balances",
        "tenant_id": tenant_id,
        "book_name": book_name,
        "branch": branch,
        "depth": depth,
        "moment": repr(moment),
    }
    place = pages.decode_page_token(page_token, arguments)
    after = BranchPlace()
    if place is not None:
        after = BranchPlace(text_in(place, "branch"), text_in(place, "type"), text_in(place, "currency"))
    async with database.transaction(tenant_id) as connection:
        journal = await find_journal(connection, tenant_id)
        if journal is None:
            return [], ""
        found = await list_branches(
            connection, tenant_id, book_name=book_name, branch=branch, depth=depth, after=after, limit=limit + 1
        )
        page = found[:limit]
        balances = [found.balance for found in page]
        if not moment.is_now:
            balances = await _balances_at(connection, journal, page, moment)
    for balance in balances:
        fitting_minor(balance.debits_minor, balance.currency)
        fitting_minor(balance.credits_minor, balance.currency)
    if len(found) <= limit:
        return balances, ""
    last = balances[-1]
    end = {"branch": last.branch, "type": last.type.value, "currency": last.currency}
    return balances, pages.encode_page_token(end, arguments)


async def _balances_at(
    connection: Connection, journal: Journal, page: Sequence[Branch], moment: Moment
) -> list[BranchBalance]:
    """The balances of the branches at a moment."""
    cut = await cut_at(connection, journal, moment)
    await check_kept(connection, journal, cut, moment.field)
    account_keys = [account_key for branch in page for account_key in branch.account_keys]
    sums = await find_sums(connection, journal, account_keys, cut)
    balances = []
    for branch in page:
        of_branch = [sums.get(account_key, NO_SUMS) for account_key in branch.account_keys]
        balances.append(
            replace(
                branch.balance,
                debits_minor=sum(each.debits_minor for each in of_branch),
                credits_minor=sum(each.credits_minor for each in of_branch),
            )
        )
    return balances
