"""What tests of the chart of accounts share."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
from google.protobuf.field_mask_pb2 import FieldMask
from kente.ledger.v1 import ledger_pb2
from kente.ledger.v1 import ledger_service_pb2 as pb2

from mesh.bus import STREAM
from tests.harness import Infrastructure
from tests.ledger.book import TYPE_OF_FIRST_WORD, Book, new_request_id

_EVENTS_SECONDS = 15.0


def draft(account_name: str, **fields: Any) -> pb2.AccountDraft:
    """One account of a batch, in GHS, whose type follows from the first word of its name."""
    values: dict[str, Any] = {"type": TYPE_OF_FIRST_WORD[account_name.partition(":")[0]], "currency": "GHS"}
    return pb2.AccountDraft(account_name=account_name, **(values | fields))


def batch_request(*drafts: pb2.AccountDraft) -> pb2.BatchCreateAccountsRequest:
    """A request to create accounts."""
    return pb2.BatchCreateAccountsRequest(request_id=new_request_id(), accounts=drafts)


def update_request(account_name: str, *paths: str, **fields: Any) -> pb2.UpdateAccountRequest:
    """A request to change the fields that the paths name."""
    values: dict[str, Any] = {"request_id": new_request_id(), "update_mask": FieldMask(paths=paths)}
    return pb2.UpdateAccountRequest(account_name=account_name, **(values | fields))


async def freeze(book: Book, account_name: str) -> ledger_pb2.Account:
    """Freezes an account."""
    request = pb2.FreezeAccountRequest(request_id=new_request_id(), account_name=account_name)
    return (await book.stub.FreezeAccount(request)).account


async def reopen(book: Book, account_name: str) -> ledger_pb2.Account:
    """Opens an account again."""
    request = pb2.OpenAccountRequest(request_id=new_request_id(), account_name=account_name)
    return (await book.stub.OpenAccount(request)).account


async def close(book: Book, account_name: str) -> ledger_pb2.Account:
    """Closes an account."""
    request = pb2.CloseAccountRequest(request_id=new_request_id(), account_name=account_name)
    return (await book.stub.CloseAccount(request)).account


async def account_names(book: Book, **filters: Any) -> list[str]:
    """Names of the accounts that pass the filters, of the first page."""
    answer = await book.stub.ListAccounts(pb2.ListAccountsRequest(**filters))
    return [account.account_name for account in answer.accounts]


async def published(
    infrastructure: Infrastructure, book: Book, resource: str, last_type: str, count: int = 1
) -> list[dict[str, Any]]:
    """Events of a tenant's resources of one kind, up to the `count`th of `last_type`."""
    connection = await nats.connect(infrastructure.nats.url)
    try:
        async with asyncio.timeout(_EVENTS_SECONDS):
            # The stream must know the subject before anybody can listen to what it holds.
            jetstream = connection.jetstream()
            subject = f"kente.{book.tenant_id}.ledger.{resource}.*"
            subscription = await jetstream.subscribe(subject, stream=STREAM, ordered_consumer=True)
            events: list[dict[str, Any]] = []
            while [event["type"] for event in events].count(last_type) < count:
                events.append(json.loads((await subscription.next_msg(timeout=_EVENTS_SECONDS)).data))
            return events
    finally:
        await connection.close()
