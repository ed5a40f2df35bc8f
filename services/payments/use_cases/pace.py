"""How long to wait before the next look at something whose end is open."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.payments.model import Call, CallState, Fault
from services.payments.settings import PaymentsSettings

# Added to the longest time that a sender needs, before its instruction counts as abandoned.
_TAKEOVER_GRACE_SECONDS = 1.0


def pause_seconds(settings: PaymentsSettings, since: datetime, now: datetime) -> float:
    """As long as it has taken so far, within bounds: so the pauses double. Rare after the horizon."""
    elapsed = (now - since).total_seconds()
    if elapsed > settings.report_delay_seconds:
        return settings.poll_rare_seconds
    return min(max(elapsed, settings.poll_first_seconds), settings.poll_longest_seconds)


def is_late(settings: PaymentsSettings, since: datetime, now: datetime) -> bool:
    """Whether people should be told that it takes too long."""
    return (now - since).total_seconds() > settings.report_delay_seconds


def is_wanted(settings: PaymentsSettings, create_time: datetime, now: datetime) -> bool:
    """Whether what has not reached a provider may still be sent."""
    return now < create_time + timedelta(seconds=settings.send_window_seconds)


def is_being_sent(settings: PaymentsSettings, call: Call, now: datetime) -> bool:
    """Whether the process that sends a call may still be at it."""
    longest = timedelta(seconds=settings.send_timeout_seconds + _TAKEOVER_GRACE_SECONDS)
    return call.state is CallState.STARTED and now < call.send_time + longest


def is_absence_proven(settings: PaymentsSettings, call: Call, now: datetime) -> bool:
    """Whether "I have no such operation" proves that a call never arrived.

    Right after sending it proves nothing: the request may still be on its way, or the provider may not have written
    it down. After the wait it is believed, for a call in doubt; a call that the provider once confirmed is not
    forgotten because of one such answer. Even if the wait should be too short, sending the call again can't charge
    twice, since it carries the same key.
    """
    waited = now >= call.send_time + timedelta(seconds=settings.not_found_wait_seconds)
    return call.state is CallState.UNKNOWN and call.fault is not Fault.AMOUNT_MISMATCH and waited
