"""Posts a transaction."""

from __future__ import annotations

from collections.abc import Callable

import stamina
from google.protobuf.message import Message

from mesh import outbox
from mesh.context import remaining_seconds
from mesh.database import Database
from mesh.errors import Problem, Reason
from services.ledger import repository
from services.ledger.model import Evaluation, Posting, Transaction, check_balanced

_FIRST_PAUSE_SECONDS = 0.005
_MAX_PAUSE_SECONDS = 0.2


async def create_transaction(
    database: Database,
    *,
    tenant_id: str,
    posting: Posting,
    describe: Callable[[Transaction], Message],
) -> Transaction:
    """Books a posting as a whole, or nothing of it; one with an id that is booked already gets that transaction.

    `describe` gives the transaction as its event carries it.

    Raises:
        Problem: TRANSACTION_UNBALANCED, ACCOUNT_NOT_FOUND, ACCOUNT_NOT_OPEN, ACCOUNT_CURRENCY_MISMATCH,
            BALANCE_OVERFLOW; RESOURCE_ALREADY_EXISTS, the id is booked with other content; SERVICE_UNAVAILABLE, others
            stood in the way until the deadline.
    """
    check_balanced(posting.legs)
    try:
        async for attempt in stamina.retry_context(
            on=repository.is_contention,
            attempts=None,
            timeout=remaining_seconds(),
            wait_initial=_FIRST_PAUSE_SECONDS,
            wait_max=_MAX_PAUSE_SECONDS,
            wait_jitter=_FIRST_PAUSE_SECONDS,
        ):
            with attempt:
                return await _post(database, tenant_id, posting, describe)
    except Exception as error:
        if not repository.is_contention(error):
            raise
        detail = "other postings on the same accounts stood in the way"
        raise Problem(Reason.SERVICE_UNAVAILABLE, detail, retry_after_seconds=1.0) from error
    raise AssertionError("a retry ends with an answer or an error")


async def _post(
    database: Database, tenant_id: str, posting: Posting, describe: Callable[[Transaction], Message]
) -> Transaction:
    async with database.transaction(tenant_id) as connection:
        accounts = await repository.lock_accounts(connection, tenant_id, posting.account_names)
        # Looked for under the locks: of two callers with the same posting, the second has waited for the first by now.
        booked = await repository.find_transaction(connection, tenant_id, posting.transaction_id)
        if booked is not None:
            return _same(booked, posting)
        evaluation = Evaluation(accounts)
        evaluated = evaluation.post(posting)
        transaction = await repository.insert_transaction(
            connection, tenant_id, posting, evaluated, evaluation.movements()
        )
        event = outbox.Event("ledger.transaction.posted", tenant_id, transaction.transaction_id, describe(transaction))
        await outbox.add(connection, event)
        return transaction


def _same(booked: Transaction, posting: Posting) -> Transaction:
    differing = booked.differences_from(posting)
    if differing:
        raise Problem(
            Reason.RESOURCE_ALREADY_EXISTS,
            f"transaction {booked.transaction_id} is booked with another {', '.join(differing)}",
            transaction_id=booked.transaction_id,
            differing_fields=",".join(differing),
        )
    return booked
