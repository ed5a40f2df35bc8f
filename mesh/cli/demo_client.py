"""How the demo looks at the mesh: over REST as a partner, at the sandbox as a provider, and inside as an operator."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from mesh.cli.database import admin_connection
from mesh.cli.demo_report import Json
from mesh.cli.events import read_events
from mesh.cli.output import CommandError
from mesh.embedded import demo_env
from mesh.embedded.layout import SANDBOX
from mesh.embedded.plan import MeshPlan

Found = TypeVar("Found")

LIMIT_SECONDS = 30.0
_POLL_SECONDS = 0.05
_REQUEST_SECONDS = 20.0
_NEWEST_EVENTS = 2_000
_PAGE_SIZE = 200


class DemoError(Exception):
    """Something is not as it should be; the message says what."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the gateway.

    Attributes:
        seconds: From sending to the whole answer.
        trace_id: Of everything that the request caused, 32 hexadecimal digits.
    """

    status: int
    body: Json
    seconds: float
    trace_id: str


class DemoClient:
    """Everything that the demo asks for. To be used as an asynchronous context manager."""

    def __init__(self, plan: MeshPlan) -> None:
        """Read the demo tenant's environment.

        Raises:
            CommandError: there is none.
        """
        self.plan = plan
        self.values = demo_env.read(plan.state)
        if not self.values.get(demo_env.API_KEY):
            raise CommandError(f"{plan.state.demo_file} holds no API key: run `kente seed`")
        self.tenant_id = self.values[demo_env.TENANT_ID]
        headers = {"Authorization": f"Bearer {self.values[demo_env.API_KEY]}"}
        base_url = self.values[demo_env.BASE_URL]
        # The addresses are on this machine: a proxy of the user's environment must not get between.
        self._gateway = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=_REQUEST_SECONDS, trust_env=False)
        self._sandbox = httpx.AsyncClient(base_url=plan.ports.url(SANDBOX), timeout=_REQUEST_SECONDS, trust_env=False)

    async def __aenter__(self) -> Self:
        """Connections are opened as they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._gateway.aclose()
        await self._sandbox.aclose()

    async def post(self, path: str, body: Json) -> Answer:
        """POST as a partner, with an Idempotency-Key of its own."""
        return await self._request("POST", path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())})

    async def get(self, path: str, **query: str) -> Json:
        """GET as a partner."""
        return (await self._request("GET", path, params=query)).body

    async def _request(self, verb: str, path: str, **arguments: Any) -> Answer:  # noqa: ANN401 - as httpx takes them
        started = time.monotonic()
        answer = await self._gateway.request(verb, path, **arguments)
        seconds = time.monotonic() - started
        try:
            body = answer.json()
        except ValueError:
            raise DemoError(f"{verb} {path} answered {answer.status_code} and no JSON") from None
        if not answer.is_success:
            reason, detail = body.get("reason", ""), body.get("detail", "")
            raise DemoError(f"{verb} {path} answered {answer.status_code} {reason}: {detail}")
        return Answer(answer.status_code, body, seconds, answer.headers.get("trace-id", ""))

    async def watch(self, payment_id: str) -> AsyncGenerator[Json]:
        """The payment now and at every change, as server-sent events, until it can change no more by itself.

        Raises:
            DemoError: it could still change after the limit, or the stream failed.
        """
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                async for payment in self._messages(payment_id):
                    yield payment
        except TimeoutError:
            raise DemoError(f"{payment_id} could still change after {LIMIT_SECONDS:.0f} s") from None

    async def _messages(self, payment_id: str) -> AsyncIterator[Json]:
        async with (
            self._gateway.stream("GET", f"/v1/payments/{payment_id}:watch", timeout=LIMIT_SECONDS) as stream,
        ):
            kind = "message"
            async for line in stream.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and kind == "message":
                    yield json.loads(value)["payment"]
                elif name == "data" and kind == "error":
                    raise DemoError(f"the watch of {payment_id} failed: {json.loads(value).get('detail', '')}")
                elif not line:
                    kind = "message"

    async def pages(self, path: str, field: str, **query: str) -> list[Json]:
        """All of a list."""
        found: list[Json] = []
        token = ""
        while True:
            page = await self.get(path, pageSize=str(_PAGE_SIZE), pageToken=token, **query)
            found += page.get(field, [])
            token = page.get("nextPageToken", "")
            if not token:
                return found

    async def charges(self, provider: str) -> dict[str, int]:
        """How often the provider moved money, by operation."""
        answer = await self._sandbox.get(f"/_state/{provider}")
        answer.raise_for_status()
        counts: dict[str, int] = answer.json()["counts"]
        return counts

    async def arm_fault(self, provider: str, operation: str, fault: str) -> None:
        """Make the provider's next answer to an operation go wrong."""
        body = {"operation": operation, "fault": fault, "count": 1}
        answer = await self._sandbox.put(f"/_faults/{provider}", json=body)
        answer.raise_for_status()

    async def disarm_faults(self, provider: str) -> None:
        """Let the provider behave again."""
        (await self._sandbox.delete(f"/_faults/{provider}")).raise_for_status()

    async def mailbox(self, recipient: str) -> list[Json]:
        """What was delivered to a recipient, oldest first."""
        answer = await self._sandbox.get("/smtp/mailbox", params={"recipient": recipient})
        answer.raise_for_status()
        mails: list[Json] = answer.json()
        return mails

    async def events(self, payment_id: str) -> list[Json]:
        """Events about a payment and what it caused, oldest first."""
        url = self.plan.outside.nats_url or self.plan.nats.url
        subject = f"kente.{self.tenant_id}.>"
        events = read_events(url, subject, last=_NEWEST_EVENTS, follow=False)
        return [event async for event in events if payment_id in json.dumps(event)]

    async def callbacks(self, payment_id: str) -> list[Json]:
        """Callbacks of providers about a payment, as the payments service kept them."""
        async with admin_connection(self.plan) as connection:
            rows = await connection.fetch(
                "SELECT DISTINCT w.webhook_id, w.provider, w.operation, w.state, w.receive_time"
                " FROM payments.webhooks w JOIN payments.attempts a ON a.connection_id = w.connection_id"
                " AND (a.attempt_key = w.attempt_key OR (a.reference <> '' AND a.reference = w.reference))"
                " WHERE a.payment_id = $1 ORDER BY w.receive_time",
                payment_id,
            )
        return [
            {
                "webhookId": row["webhook_id"],
                "provider": row["provider"],
                "operation": row["operation"],
                "state": row["state"],
                "receiveTime": row["receive_time"].isoformat(),
            }
            for row in rows
        ]


async def until(what: str, ask: Callable[[], Awaitable[Found | None]]) -> Found:
    """Ask again and again, until there is an answer.

    Raises:
        DemoError: there was none within the limit.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while (found := await ask()) is None:
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {LIMIT_SECONDS:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)
    return found
