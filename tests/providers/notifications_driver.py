"""How to exercise message providers."""

from __future__ import annotations

from typing import Any

from mesh.provider.adapter import Adapter
from services.notifications.provider import Email, EmailOrder, Finding, FindMessage, OutcomeState
from tests.providers.contract import Attempt, Case, Driver, Question, Seen, State, Values

_FOUND = {Finding.TAKEN: State.DONE, Finding.NOT_FOUND: State.ABSENT}


def _key(attempt: Attempt) -> str:
    return f"{attempt.key}@messages.kente.example"


class Emails(Case):
    """An e-mail. No provider of messages knows our key again, so a resend is a second message: that is why it asks."""

    capability, operation, find_operation = "Email", "send", "find_message"
    key_is_kept = False

    async def send(self, adapter: Adapter, attempt: Attempt, prepared: Any) -> Seen:
        del prepared
        assert isinstance(adapter, Email)
        outcome = await adapter.send(
            EmailOrder(
                message_key=_key(attempt),
                sender="Adom Störes <receipts@adom.example>",
                recipient=attempt.values.fields["recipient"],
                subject="Reçu: GHS 10.50",
                text="Ama's receipt\n.a line that begins with a dot\n" + "long " * 400,
                html="<p>Ama&#39;s receipt</p>",
            )
        )
        if outcome.state is OutcomeState.SENT:
            assert outcome.failure is None
            return Seen(State.DONE, outcome.reference)
        assert outcome.failure is not None, "a refusal says why"
        return Seen(State.REFUSED, why=f"{outcome.failure.code}: {outcome.failure.message}")

    async def find(self, adapter: Adapter, attempt: Attempt, reference: str = "") -> Seen:
        del reference
        assert isinstance(adapter, FindMessage)
        found = await adapter.find_message(_key(attempt))
        return Seen(_FOUND[found.finding], found.reference)


class Findings(Question):
    """A message that nobody sent."""

    capability, operation = "FindMessage", "find_message"

    async def ask(self, adapter: Adapter, values: Values) -> object:
        del values
        assert isinstance(adapter, FindMessage)
        assert adapter.proof_seconds > 0
        found = await adapter.find_message("never-sent@messages.kente.example")
        assert found.finding is Finding.NOT_FOUND
        return found


DRIVER = Driver(domain="notifications", cases=(Emails(),), questions=(Findings(),))
