"""What the demo reports: each scenario with its steps, facts and checks."""

from dataclasses import dataclass, field
from typing import Any, Protocol

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so."""

    claim: str
    is_so: bool


@dataclass(slots=True)
class Scenario:
    """One run of one story.

    Attributes:
        seconds: How long it took.
        steps: What happened, with the seconds since its begin.
        facts: What was found out.
    """

    name: str
    title: str
    seconds: float = 0.0
    steps: list[tuple[float, str, str]] = field(default_factory=list)
    facts: Json = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether everything was as it should be."""
        return bool(self.checks) and all(check.is_so for check in self.checks)

    def to_json(self) -> Json:
        """For machines."""
        return {
            "name": self.name,
            "title": self.title,
            "ok": self.is_well,
            "seconds": round(self.seconds, 3),
            "steps": [{"atSeconds": round(at, 3), "where": where, "what": what} for at, where, what in self.steps],
            "facts": self.facts,
            "checks": [{"claim": check.claim, "ok": check.is_so} for check in self.checks],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All scenarios, and why they ended early if they did."""

    scenarios: list[Scenario]
    seconds: float
    error: str = ""

    @property
    def is_well(self) -> bool:
        """Whether everything was as it should be."""
        return not self.error and all(scenario.is_well for scenario in self.scenarios)

    def to_json(self) -> Json:
        """For machines."""
        return {
            "ok": self.is_well,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "scenarios": [scenario.to_json() for scenario in self.scenarios],
        }


class View(Protocol):
    """Who is shown what happens, as it happens."""

    def begin(self, scenario: Scenario) -> None:
        """A scenario begins."""

    def step(self, at_seconds: float, where: str, what: str) -> None:
        """Something happened."""

    def waiting(self, what: str) -> None:
        """Something is waited for."""

    def end(self, scenario: Scenario) -> None:
        """A scenario ended."""
