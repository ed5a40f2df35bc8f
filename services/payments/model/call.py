"""One instruction to a provider."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from services.payments.model.states import CALL_MOVES, LIVE_CALL_STATES, CallState, Fault, IllegalMoveError
from services.payments.model.values import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One instruction to a provider, saved before it is sent: an attempt, or the sending of a capture or a refund.

    Attributes:
        send_time: when it was last sent; the provider may still be working on it for a while after.
        delay_reported: people were told that it takes too long.
    """

    state: CallState
    provider: str
    connection_id: str
    reference: str = ""
    fault: Fault = Fault.NONE
    failure: Failure | None = None
    send_time: datetime
    delay_reported: bool = False

    @property
    def live(self) -> bool:
        """Whether the provider may have it and its end is open."""
        return self.state in LIVE_CALL_STATES

    def moved(
        self,
        state: CallState,
        *,
        reference: str = "",
        fault: Fault = Fault.NONE,
        failure: Failure | None = None,
    ) -> Call:
        """The call in another state, or in the same with more known. A reference once known is kept.

        Raises:
            IllegalMoveError: the move is not in CALL_MOVES.
        """
        if state is not self.state and state not in CALL_MOVES[self.state]:
            raise IllegalMoveError(f"call from {self.state} to {state}")
        return replace(self, state=state, reference=self.reference or reference, fault=fault, failure=failure)

    def sent_again(self, now: datetime) -> Call:
        """The call about to be sent again with the same key: a NOT_SENT one starts anew, one in doubt stays so."""
        if self.state is CallState.NOT_SENT:
            return replace(self.moved(CallState.STARTED), send_time=now)
        if self.state in (CallState.STARTED, CallState.UNKNOWN):
            return replace(self, send_time=now)
        raise IllegalMoveError(f"call in {self.state} sent again")
