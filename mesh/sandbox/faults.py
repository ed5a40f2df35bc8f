"""Faults on demand: named ones by the control API, random ones by seed."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from mesh.sandbox.settings import SandboxSettings
from mesh.sandbox.store import Store

ANY_OPERATION = "*"


class Fault(enum.StrEnum):
    """What can go wrong. The first group is done by the sandbox, the second by each simulator for its protocol."""

    # The request is read and nothing is done; no answer comes.
    TIMEOUT_BEFORE = "timeout_before"
    # It is done; no answer comes.
    TIMEOUT_AFTER_COMMIT = "timeout_after_commit"
    # It is done; the connection is reset.
    RESET_AFTER_COMMIT = "reset_after_commit"
    # Nothing is done; 429 with Retry-After.
    STORM_429 = "storm_429"
    # It is done; a gateway's HTML page comes instead of the answer.
    HTML_502 = "html_502"
    # It is done; half of the answer comes.
    TRUNCATED_JSON = "truncated_json"
    # The callback comes late, twice, after a later one, or never.
    LATE_CALLBACK = "late_callback"
    DUPLICATE_CALLBACK = "duplicate_callback"
    OUT_OF_ORDER_CALLBACK = "out_of_order_callback"
    NO_CALLBACK = "no_callback"

    # The provider refuses, in its own words.
    DECLINE = "decline"
    # The answer holds a state that is not in the documentation.
    UNKNOWN_STATUS = "unknown_status"


# A decline is an answer and no fault of the way there, so it does not come at random.
_RANDOM = [fault for fault in Fault if fault is not Fault.DECLINE]


@dataclass(slots=True)
class _Planned:
    operation: str
    fault: Fault
    # None is until cleared.
    count: int | None


class FaultPlan:
    """The faults that wait for requests. Kept in the store, so that they outlive a kill."""

    def __init__(self, store: Store, settings: SandboxSettings) -> None:
        self._store = store
        self._rate = settings.fault_rate
        self._seed = settings.seed
        self._random: dict[str, random.Random] = {}
        self._planned: dict[str, list[_Planned]] = {}
        for slug, operation, fault, count in store.load_faults():
            self._planned.setdefault(slug, []).append(_Planned(operation, Fault(fault), count))

    def add(self, slug: str, operation: str, fault: Fault, count: int | None) -> None:
        """Plans a fault for the next `count` requests of an operation, or until cleared when it is None."""
        self._planned.setdefault(slug, []).append(_Planned(operation, fault, count))
        self._save(slug)

    def clear(self, slug: str | None = None) -> None:
        """Forgets the faults of a provider, or all."""
        for name in [slug] if slug else list(self._planned):
            self._planned.pop(name, None)
            self._save(name)

    def listed(self, slug: str) -> list[dict[str, object]]:
        """The faults that still wait."""
        return [
            {"operation": planned.operation, "fault": planned.fault.value, "count": planned.count}
            for planned in self._planned.get(slug, ())
        ]

    def take(self, slug: str, operation: str) -> Fault | None:
        """The fault that this request gets, if any; uses it up."""
        for planned in self._planned.get(slug, ()):
            if planned.operation in {operation, ANY_OPERATION}:
                if planned.count is not None:
                    planned.count -= 1
                    self._planned[slug] = [each for each in self._planned[slug] if each.count != 0]
                    self._save(slug)
                return planned.fault
        return self._take_random(slug)

    def _take_random(self, slug: str) -> Fault | None:
        if not self._rate:
            return None
        dice = self._random.setdefault(slug, random.Random(f"{self._seed}:{slug}"))  # noqa: S311 - not for secrets
        return dice.choice(_RANDOM) if dice.random() < self._rate else None

    def _save(self, slug: str) -> None:
        rows = [(each.operation, each.fault.value, each.count) for each in self._planned.get(slug, ())]
        self._store.save_faults(slug, rows)
