"""The ledger as `kente ledger` sees it: over gRPC, as the operator, for one tenant."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from kente.common.v1.money_pb2 import Money
from kente.ledger.v1 import (
    ledger_pb2,
    ledger_service_pb2,
    ledger_service_pb2_grpc,
    proof_service_pb2_grpc,
    report_service_pb2_grpc,
)

from mesh.channel import open_channel
from mesh.cli.ledger_input import format_amount
from mesh.cli.options import plan_of, running_plan, state_at
from mesh.cli.output import CommandError
from mesh.context import call_tenant
from mesh.embedded import demo_env
from mesh.embedded.keys import load_or_create
from mesh.embedded.layout import OPERATOR
from mesh.errors import Problem
from mesh.money import exponent_of
from mesh.settings import MeshSettings, load
from mesh.tokens import Identity

Result = TypeVar("Result")

PAGE_SIZE = 200
_CALL_SECONDS = 30.0
# A stream takes as long as the books are large.
_STREAM_SECONDS = 24 * 3_600.0


class LedgerClient:
    """Calls for one tenant and one book."""

    def __init__(self, channel: grpc.aio.Channel, tenant_id: str, book_name: str) -> None:
        self.ledger = ledger_service_pb2_grpc.LedgerServiceStub(channel)
        self.proofs = proof_service_pb2_grpc.ProofServiceStub(channel)
        self.reports = report_service_pb2_grpc.ReportServiceStub(channel)
        self.channel = channel
        self.tenant_id = tenant_id
        self.book_name = book_name
        self._scales: dict[str, int] = {}

    async def account(self, account_name: str) -> ledger_pb2.Account:
        """Reads one account."""
        request = ledger_service_pb2.GetAccountRequest(account_name=account_name, book_name=self.book_name)
        answer = await self.ledger.GetAccount(request)
        self._scales[answer.account.currency] = answer.account.scale
        return answer.account

    async def accounts(
        self, prefix: str, type_: ledger_pb2.Account.Type.ValueType
    ) -> AsyncIterator[ledger_pb2.Account]:
        """All accounts whose names begin so, by name."""
        request = ledger_service_pb2.ListAccountsRequest(
            page_size=PAGE_SIZE, account_name_prefix=prefix, book_name=self.book_name, type=type_
        )
        while True:
            answer = await self.ledger.ListAccounts(request)
            for account in answer.accounts:
                self._scales[account.currency] = account.scale
                yield account
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def learn_scales(self, branches: Mapping[str, str]) -> None:
        """Finds out the decimals of currencies, given the beginning of the name of an account in each."""
        for currency, branch in branches.items():
            try:
                self._scales.setdefault(currency, exponent_of(currency))
            except ValueError:
                await self._find_scale(currency, branch)

    async def _find_scale(self, currency: str, branch: str) -> None:
        async for _ in self.accounts(branch, ledger_pb2.Account.TYPE_UNSPECIFIED):
            if currency in self._scales:
                return

    def amount(self, money: Money) -> str:
        """An amount in major units, of a currency whose decimals are known by now."""
        return self.amount_of(money.amount_minor, money.currency)

    def amount_of(self, amount_minor: int, currency: str) -> str:
        """The same of minor units."""
        scale = self._scales.get(currency)
        return format_amount(amount_minor, exponent_of(currency) if scale is None else scale)


def run(
    state_dir: Path,
    tenant: str,
    book_name: str,
    work: Callable[[LedgerClient], Awaitable[Result]],
    *,
    is_stream: bool = False,
) -> Result:
    """Does some work with the ledger of the mesh that runs here.

    Args:
        tenant: whose ledger; empty for the demo tenant's.
        is_stream: whether it takes as long as the books are large.

    Raises:
        CommandError: no mesh runs, the ledger does not answer, or it refused.
    """
    return asyncio.run(_run(state_dir, tenant, book_name, work, is_stream=is_stream))


async def _run(
    state_dir: Path,
    tenant: str,
    book_name: str,
    work: Callable[[LedgerClient], Awaitable[Result]],
    *,
    is_stream: bool,
) -> Result:
    tenant_id = tenant or _demo_tenant(state_dir)
    try:
        async with _channel(state_dir) as channel:
            with call_tenant(tenant_id, timeout_seconds=_STREAM_SECONDS if is_stream else _CALL_SECONDS):
                return await work(LedgerClient(channel, tenant_id, book_name))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise CommandError("the ledger does not answer: look with `kente status`") from error
        problem = Problem.from_rpc_error(error)
        raise CommandError(f"the ledger refused: {problem.reason_name}: {problem.detail}") from error


def _demo_tenant(state_dir: Path) -> str:
    tenant_id = demo_env.read(state_at(state_dir)).get(demo_env.TENANT_ID, "")
    if not tenant_id:
        raise CommandError("there is no demo tenant here: name a tenant with --tenant, or run `kente seed`")
    return tenant_id


@asynccontextmanager
async def _channel(state_dir: Path) -> AsyncIterator[grpc.aio.Channel]:
    settings = _operator_settings(state_dir)
    if settings.identity_file is None:
        raise CommandError("KENTE_IDENTITY_FILE must name the operator's key: `kente identities` makes one")
    async with open_channel("ledger", settings, Identity.load(settings.identity_file)) as channel:
        yield channel


def _operator_settings(state_dir: Path) -> MeshSettings:
    state = state_at(state_dir)
    if "KENTE_IDENTITY_FILE" in os.environ:
        # Given everything by whoever runs the services elsewhere.
        plan_of(state)
    else:
        plan = running_plan(state)[0]
        os.environ.update(plan.environment_of(OPERATOR, load_or_create(state)))
    return load(MeshSettings)
