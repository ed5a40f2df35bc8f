"""What the contract suite needs to know of a domain: how to exercise each of its capabilities.

A domain has one module tests/providers/<domain>_driver.py with a `DRIVER`. A provider has no test of its own: its
folder brings examples/contract.json with the values to exercise it with, and examples/*.json to replay.
"""

from __future__ import annotations

import enum
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.ids import derive_uuid, new_id
from mesh.money import Money
from mesh.provider.adapter import Adapter
from mesh.provider.folders import domains, provider_folders


class State(enum.StrEnum):
    """Where an operation is, in words that every domain has."""

    DONE = "done"
    PENDING = "pending"
    REFUSED = "refused"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Seen:
    """What an adapter said about an operation. `why` is the failure of a refusal, as text."""

    state: State
    reference: str = ""
    amount: Money | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Values:
    """What to exercise a provider with: examples/contract.json.

    Attributes:
        orders: amounts with the settings of a connection that takes them; the first is used where any will do.
        fields: the rest of the file: a number, a card, a recipient.
    """

    orders: Sequence[Mapping[str, Any]]
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Values:
        """Reads a provider's file."""
        content: dict[str, Any] = json.loads((folder / "examples" / "contract.json").read_text())
        orders = content.pop("orders", [{}])
        return cls(orders, content)

    def amount(self, order: Mapping[str, Any]) -> Money:
        """The amount of an order; a placeholder in domains without money."""
        return Money(int(order.get("amount_minor", 0)), str(order.get("currency", "USD")))

    @property
    def personal(self) -> list[str]:
        """Values that must not reach a log."""
        return [str(value) for name, value in self.fields.items() if name in {"msisdn", "card_token", "recipient"}]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One operation to exercise."""

    amount: Money
    values: Values
    key: str = field(default_factory=lambda: derive_uuid("contract", new_id("att")))


class Case(ABC):
    """One operation that changes something at a provider.

    Attributes:
        capability: name of the interface.
        operation: as the simulator names its route, its faults and its movements.
        find_operation: as the simulator names the route that is asked.
        movement: as the simulator names the money (or message) that moved; the operation when empty.
        can_be_declined: whether a provider can say no to it for a reason of the payer's.
        key_is_kept: whether the provider knows our key again, so that a resend does nothing twice.
    """

    capability: str
    operation: str
    find_operation: str
    movement: str = ""
    can_be_declined: bool = True
    key_is_kept: bool = True

    async def prepare(self, adapter: Adapter, attempt: Attempt) -> Any:
        """What must be there first, such as the payment that is refunded."""
        del adapter, attempt

    @abstractmethod
    async def send(self, adapter: Adapter, attempt: Attempt, prepared: Any) -> Seen:
        """Does it."""

    @abstractmethod
    async def find(self, adapter: Adapter, attempt: Attempt, reference: str = "") -> Seen:
        """Asks how it stands."""


class Question(ABC):
    """One operation that only asks."""

    capability: str
    operation: str

    @abstractmethod
    async def ask(self, adapter: Adapter, values: Values) -> object:
        """Asks, and asserts that the answer makes sense."""


@dataclass(frozen=True, slots=True)
class Driver:
    """How to exercise a domain.

    Attributes:
        elsewhere: capabilities that the suite exercises in another way, such as callbacks.
        call: makes the call of an example: adapter, name of the method, its arguments as JSON has them.
    """

    domain: str
    cases: tuple[Case, ...]
    questions: tuple[Question, ...]
    elsewhere: frozenset[str] = frozenset()
    call: Callable[[Adapter, str, Mapping[str, Any]], Awaitable[object]] | None = None

    @property
    def capabilities(self) -> set[str]:
        """What it can exercise."""
        exercised = {case.capability for case in self.cases} | {question.capability for question in self.questions}
        return exercised | self.elsewhere


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider's folder."""

    domain: str
    slug: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.domain}-{self.slug}"


def all_providers() -> list[Provider]:
    """Every provider of every domain."""
    return [Provider(domain, folder.name, folder) for domain in domains() for folder in provider_folders(domain)]


def driver_of(domain: str) -> Driver:
    """How to exercise a domain."""
    driver: Driver = importlib.import_module(f"tests.providers.{domain}_driver").DRIVER
    return driver
