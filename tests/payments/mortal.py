"""A process of the payments service that can be killed at any moment that matters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from mesh.channel import open_channel
from mesh.context import call_tenant
from mesh.database import Connection, Database
from mesh.provider.adapter import Adapter
from mesh.provider.registry import Registry
from services.payments import convert
from services.payments.peers import Ledger, Providers
from services.payments.settings import PaymentsSettings
from services.payments.use_cases.desk import Desk
from tests.payments.conftest import SHORT_TIMES
from tests.payments.till import Till


class Killed(BaseException):
    """The process is gone: nothing catches this, and nothing after it runs."""


class Life:
    """Counts the moments of a run and ends it at one of them; never, when that is 0."""

    def __init__(self, deadly_moment: int) -> None:
        self.deadly_moment = deadly_moment
        self.moments = 0

    def moment(self) -> None:
        """Something could end here."""
        self.moments += 1
        if self.moments == self.deadly_moment:
            raise Killed


class MortalDatabase(Database):
    """Dies before a transaction, before its commit, or right after it."""

    life: Life

    @asynccontextmanager
    async def transaction(
        self, tenant_id: str, *, by_index: bool = False, first: str = ""
    ) -> AsyncIterator[Connection]:
        """As Database, with three moments."""
        self.life.moment()
        async with super().transaction(tenant_id, by_index=by_index, first=first) as connection:
            yield connection
            self.life.moment()
        self.life.moment()


class MortalProviders(Providers):
    """Dies right before a request to a provider, or after it before the answer is known."""

    life: Life

    async def adapter(self, tenant_id: str, connection_id: str) -> Adapter:
        """As Providers, with two moments around each request."""
        adapter = await super().adapter(tenant_id, connection_id)
        send = type(adapter.http).send

        async def mortal_send(*arguments: Any, **named: Any) -> Any:
            self.life.moment()
            answer = await send(adapter.http, *arguments, **named)
            self.life.moment()
            return answer

        cast("Any", adapter.http).send = mortal_send
        return adapter


@asynccontextmanager
async def mortal_desk(till: Till, deadly_moment: int) -> AsyncIterator[tuple[Desk, Life]]:
    """A desk of another process of the same service, for one run on behalf of the till's tenant."""
    world, life = till.world, Life(deadly_moment)
    infrastructure = world.mesh.infrastructure
    mesh = infrastructure.settings("payments", sandbox_url=world.sandbox.url, public_url=world.gateway_url)
    identity = infrastructure.identity("payments")
    connections, ledger = open_channel("connections", mesh, identity), open_channel("ledger", mesh, identity)
    registry = Registry("payments", sandbox_url=world.sandbox.url)
    providers = MortalProviders(
        registry,
        connections,
        public_url=world.gateway_url,
        links_lifetime_seconds=1,
        adapter_lifetime_seconds=1,
    )
    database = cast("MortalDatabase", await MortalDatabase.connect(till.role_url(), pool_size=2))
    database.life = providers.life = life
    desk = Desk(
        database=database,
        settings=PaymentsSettings.model_validate(SHORT_TIMES),
        providers=providers,
        ledger=Ledger(ledger),
        describe_payment=convert.payment_to_proto,
        describe_refund=convert.refund_to_proto,
    )
    try:
        with call_tenant(till.tenant_id):
            yield desk, life
    finally:
        await registry.close()
        await database.close()
        await connections.close()
        await ledger.close()


Run = Callable[[Desk], Any]


async def live_until(till: Till, deadly_moment: int, run: Run) -> bool:
    """Runs something in a process that is killed at a moment; False when it had ended before."""
    async with mortal_desk(till, deadly_moment) as (desk, _life):
        try:
            await run(desk)
        except Killed:
            return True
    return False


async def count_moments(till: Till, run: Run) -> int:
    """How many moments a run has at which its process can be killed."""
    async with mortal_desk(till, 0) as (desk, life):
        await run(desk)
        return life.moments
