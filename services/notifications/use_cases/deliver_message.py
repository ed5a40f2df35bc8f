"""Delivers one message: hands it over, tries again where nothing was taken, and asks where nobody knows.

The state SENDING is saved before the hand-over. Whoever finds a message so, after a crash or a lost answer, asks the
provider by the message's key. It is handed over again only when it is proven that it was not taken; where the provider
can't be asked, a setting decides.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from google.protobuf.message import Message as ProtoMessage
from prometheus_client import Counter

from mesh import outbox
from mesh.clock import utc_now
from mesh.database import Database
from mesh.errors import Problem, Reason
from mesh.jobs import Job, RetryLater
from mesh.provider.adapter import Adapter
from mesh.provider.errors import OutcomeUnknown, ProviderError, RateLimited
from services.notifications import repository
from services.notifications.model import Message, MessageState, next_connection, pause_seconds
from services.notifications.peers import Providers
from services.notifications.provider import (
    Email,
    EmailOrder,
    Finding,
    FindMessage,
    FoundMessage,
    Outcome,
    OutcomeState,
)
from services.notifications.settings import NotificationsSettings

log = structlog.get_logger()

MESSAGES = Counter("kente_messages_total", "What became of hand-overs of messages.", ["template", "outcome"])

# Longest that any hand-over can take, for a connection that can't say so any more; a job is ended long before.
_HAND_OVER_MAX_SECONDS = 60.0
_ASK_LONGEST_SECONDS = 60.0
_UNKNOWN = "outcome unknown: the connection was lost while the message was handed over"


class Delivery:
    """Runs the job "deliver_message"."""

    def __init__(
        self,
        database: Database,
        providers: Providers,
        settings: NotificationsSettings,
        describe: Callable[[Message], ProtoMessage],
    ) -> None:
        self._database = database
        self._providers = providers
        self._settings = settings
        self._describe = describe

    async def deliver_message(self, job: Job) -> None:
        """Brings a message as far as it can now.

        Raises:
            RetryLater: it is not at its end.
            Problem: connections is away; the job is run again.
        """
        async with self._database.transaction(job.tenant_id) as connection:
            message = await repository.find_message(connection, str(job.payload["message_id"]))
        if message is None:
            log.error("message_missing", message_id=job.payload["message_id"])
            return
        if message.state is MessageState.SENDING:
            message = await self._resolve(message, job)
        if message.state is MessageState.QUEUED:
            await self._hand_over(message, job)

    async def _hand_over(self, message: Message, job: Job) -> None:
        """Hands a queued message over, or says when to try again."""
        connections = await self._providers.email_connections(message.tenant_id)
        chosen = next_connection(connections, message)
        if chosen is None:
            await self._postpone(message, "no connection of the tenant can carry e-mail", self._later(job))
            return
        try:
            adapter = await self._open(message.tenant_id, chosen.connection_id)
        except (ProviderError, LookupError) as error:
            async with self._database.transaction(message.tenant_id) as connection:
                await repository.note_connection(
                    connection, message, provider=chosen.provider, connection_id=chosen.connection_id
                )
            await self._providers.forget(message.tenant_id)
            await self._postpone(message, f"{chosen.connection_id} can't be used: {error}", self._later(job))
            return
        if not isinstance(adapter, Email):
            raise TypeError(f"{chosen.provider} can't carry e-mail")
        async with self._database.transaction(message.tenant_id) as connection:
            sending = await repository.start_sending(
                connection, message, provider=chosen.provider, connection_id=chosen.connection_id, now=utc_now()
            )
        if sending is None:
            # Another run of this job was faster.
            raise self._later(job)
        await self._send(sending, adapter, adapter.connection.settings.get("sender") or self._settings.sender, job)

    async def _send(self, message: Message, adapter: Email, sender: str, job: Job) -> None:
        content = message.content
        order = EmailOrder(message.message_key, sender, message.recipient, content.subject, content.text, content.html)
        try:
            outcome = await adapter.send(order)
        except OutcomeUnknown as error:
            log.warning("message_outcome_unknown", message_id=message.message_id, problem=str(error))
            MESSAGES.labels(message.template, "unknown").inc()
            await self._move(message, MessageState.SENDING, failure=_UNKNOWN)
            raise RetryLater(self._settings.retry_first_seconds) from None
        except ProviderError as error:
            later = self._later(job)
            if isinstance(error, RateLimited):
                later = RetryLater(max(later.delay_seconds, error.retry_after_seconds))
            await self._postpone(message, str(error), later)
            return
        await self._finish(message, outcome)

    async def _resolve(self, message: Message, job: Job) -> Message:
        """Finds out about a hand-over whose end nobody saw; the message as it then is.

        Raises:
            RetryLater: it is not known yet.
        """
        found, proof_seconds = await self._ask(message, job)
        if found.finding is Finding.TAKEN:
            return await self._finish(message, Outcome(OutcomeState.SENT, found.reference))
        if found.finding is Finding.UNANSWERABLE and self._settings.unknown_outcome == "hold":
            if message.failure != _UNKNOWN:
                await self._move(message, MessageState.SENDING, failure=_UNKNOWN)
            raise RetryLater(self._settings.unknown_recheck_seconds)
        send_time = message.send_time or message.update_time
        missing_seconds = proof_seconds - (utc_now() - send_time).total_seconds()
        if missing_seconds > 0:
            # It may still be on its way, or in the hands of another run of this job.
            raise RetryLater(min(missing_seconds, self._settings.retry_first_seconds))
        log.info("message_not_taken", message_id=message.message_id, finding=found.finding.value)
        return await self._move(message, MessageState.QUEUED, failure=_UNKNOWN)

    async def _ask(self, message: Message, job: Job) -> tuple[FoundMessage, float]:
        """What the provider says, and after how many seconds its NOT_FOUND is a proof."""
        unanswerable = FoundMessage(Finding.UNANSWERABLE), _HAND_OVER_MAX_SECONDS
        try:
            adapter = await self._open(message.tenant_id, message.connection_id)
        except (ProviderError, LookupError):
            return unanswerable
        if not isinstance(adapter, FindMessage):
            return unanswerable
        try:
            return await adapter.find_message(message.message_key), adapter.proof_seconds
        except ProviderError as error:
            log.warning("message_not_asked_for", message_id=message.message_id, problem=str(error))
            pause = pause_seconds(job.attempt, self._settings.retry_first_seconds, _ASK_LONGEST_SECONDS)
            raise RetryLater(pause) from None

    async def _open(self, tenant_id: str, connection_id: str) -> Adapter:
        """The adapter of a connection.

        Raises:
            LookupError: the connection or its provider is gone.
            BadCredentials: its credentials or settings don't fit.
            Problem: connections is away.
        """
        try:
            return await self._providers.open(tenant_id, connection_id)
        except Problem as problem:
            if problem.reason is not Reason.RESOURCE_NOT_FOUND:
                raise
            raise LookupError("the connection does not exist") from None

    async def _postpone(self, message: Message, failure: str, later: RetryLater) -> None:
        """Back to the queue with a visible failure; or the end, when its time is over.

        Raises:
            RetryLater: it is to be tried again.
        """
        age_seconds = (utc_now() - message.create_time).total_seconds()
        if age_seconds + later.delay_seconds > self._settings.delivery_window_seconds:
            await self._move(message, MessageState.FAILED, failure=f"given up: {failure}")
            return
        MESSAGES.labels(message.template, "postponed").inc()
        await self._move(message, MessageState.QUEUED, failure=failure)
        raise later

    async def _finish(self, message: Message, outcome: Outcome) -> Message:
        if outcome.failure is None:
            return await self._move(message, MessageState.SENT, provider_reference=outcome.reference)
        failure = outcome.failure
        code = f" ({failure.provider_code})" if failure.provider_code else ""
        return await self._move(
            message,
            MessageState.FAILED,
            failure=f"{failure.code}: {failure.message}{code}",
            suppress_recipient=failure.suppress,
        )

    async def _move(
        self,
        message: Message,
        state: MessageState,
        *,
        failure: str = "",
        provider_reference: str = "",
        suppress_recipient: bool = False,
    ) -> Message:
        """Writes what is known, with its event when it is the end; the message as it now is.

        Raises:
            RetryLater: another run of this job was faster: what it found out counts.
        """
        async with self._database.transaction(message.tenant_id) as connection:
            moved = await repository.move_message(
                connection,
                message,
                state,
                now=utc_now(),
                failure=failure,
                provider_reference=provider_reference,
                suppress_recipient=suppress_recipient,
            )
            if moved is not None and state in {MessageState.SENT, MessageState.FAILED}:
                type_ = f"notifications.message.{state.value}"
                event = outbox.Event(type_, moved.tenant_id, moved.message_id, self._describe(moved))
                await outbox.add(connection, event)
        if moved is None:
            log.warning("message_overtaken", message_id=message.message_id, state=state.value)
            raise RetryLater(self._settings.retry_first_seconds)
        if state in {MessageState.SENT, MessageState.FAILED}:
            MESSAGES.labels(moved.template, state.value).inc()
            log.info("message_ended", message_id=moved.message_id, state=state.value, attempts=moved.attempts)
        return moved

    def _later(self, job: Job) -> RetryLater:
        settings = self._settings
        return RetryLater(pause_seconds(job.attempt, settings.retry_first_seconds, settings.retry_longest_seconds))
