"""How the bus is told what a batch booked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mesh.outbox import Event
from services.ledger.model.postings import Transaction

# An event tells of at most so many bytes of transactions; it must be smaller than outbox.MAX_EVENT_BYTES.
_EVENT_BYTES = 256 * 1024

Describe = Callable[[Transaction], Mapping[str, Any]]
# A transaction, and the trace of the call that asked for it.
Traced = tuple[Transaction, Mapping[str, str]]


def expired_events(tenant_id: str, expiries: Iterable[Transaction], describe: Describe) -> Iterator[Event]:
    """What says of each hold that its time was over."""
    for expiry in expiries:
        yield Event("ledger.hold.expired", tenant_id, expiry.related_id, describe(expiry), {})


def booked_events(tenant_id: str, gathered: Sequence[Traced], describe: Describe) -> Iterator[Event]:
    """What lists transactions that lie side by side in the book.

    This and transfers_event are said of the tenant, so that they are published one after the other: what a subscriber
    sees has neither a gap nor another order than the book, which the leaf indexes prove.
    """
    start, weight = 0, 0
    for end, (transaction, _) in enumerate(gathered, start=1):
        weight += _weight(transaction)
        if weight > _EVENT_BYTES or end == len(gathered):
            transactions = [one for one, _ in gathered[start:end]]
            data = _range_of(transactions) | {"transactions": [describe(one) for one in transactions]}
            yield Event("ledger.transactions.booked", tenant_id, tenant_id, data, gathered[start][1])
            start, weight = end, 0


def transfers_event(
    tenant_id: str, request_id: str, transactions: Sequence[Transaction], trace_context: Mapping[str, str]
) -> Event:
    """What says where the transfers of one call are in the book."""
    data = _range_of(transactions) | {"requestId": request_id}
    return Event("ledger.transfers.booked", tenant_id, tenant_id, data, trace_context)


def _weight(transaction: Transaction) -> int:
    """Most bytes that a transaction takes in an event."""
    texts = [transaction.description, transaction.source_id, *transaction.metadata, *transaction.metadata.values()]
    # JSON writes a character as six at worst.
    return 1000 + 500 * len(transaction.entries) + 6 * sum(map(len, texts))


def _range_of(transactions: Sequence[Transaction]) -> dict[str, Any]:
    """Where transactions that lie side by side are in the book."""
    first, last = transactions[0], transactions[-1]
    return {
        "transactionCount": len(transactions),
        "firstLeafIndex": str(first.leaf_index),
        "lastLeafIndex": str(last.leaf_index),
        "firstSequence": str(first.first_sequence),
        "lastSequence": str(last.first_sequence + len(last.entries) - 1),
    }
