"""How to exercise payment providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.ids import derive_uuid
from mesh.money import Money
from mesh.provider.adapter import Adapter
from services.payments.provider import (
    Balance,
    CardCharge,
    ChargeOrder,
    CollectOrder,
    HolderCheck,
    OperationKey,
    Outcome,
    OutcomeState,
    Payout,
    PayoutOrder,
    Refund,
    RefundOrder,
    WalletCollect,
)
from tests.harness import eventually
from tests.providers.contract import Attempt, Case, Driver, Question, Seen, State, Values

_STATES = {
    OutcomeState.NOT_FOUND: State.ABSENT,
    OutcomeState.PENDING: State.PENDING,
    OutcomeState.ACTION_REQUIRED: State.PENDING,
    OutcomeState.AUTHORIZED: State.DONE,
    OutcomeState.SUCCEEDED: State.DONE,
    OutcomeState.FAILED: State.REFUSED,
    OutcomeState.CANCELED: State.REFUSED,
    OutcomeState.EXPIRED: State.REFUSED,
}


def seen(outcome: Outcome) -> Seen:
    """An outcome in the suite's words."""
    state = _STATES[outcome.state]
    assert (outcome.failure is not None) == (state is State.REFUSED), "a failure belongs to a refusal, and only there"
    why = f"{outcome.failure.code}: {outcome.failure.message}" if outcome.failure else ""
    return Seen(state, outcome.reference, outcome.amount, why)


class Collect(Case):
    capability, operation, find_operation = "WalletCollect", "collect", "find_collect"

    async def send(self, adapter: Adapter, attempt: Attempt, prepared: Any) -> Seen:
        del prepared
        assert isinstance(adapter, WalletCollect)
        order = CollectOrder(attempt.key, "pay_1", attempt.amount, attempt.values.fields["msisdn"], "Ama's order 1")
        return seen(await adapter.collect(order))

    async def find(self, adapter: Adapter, attempt: Attempt, reference: str = "") -> Seen:
        assert isinstance(adapter, WalletCollect)
        return seen(await adapter.find_collect(OperationKey(attempt.key, reference)))


class Charge(Case):
    capability, operation, find_operation = "CardCharge", "charge", "find_charge"
    capture = True

    async def send(self, adapter: Adapter, attempt: Attempt, prepared: Any) -> Seen:
        del prepared
        assert isinstance(adapter, CardCharge)
        order = ChargeOrder(
            attempt_key=attempt.key,
            payment_id="pay_1",
            amount=attempt.amount,
            card_token=attempt.values.fields["card_token"],
            description="Ama's order 1",
            capture=self.capture,
            return_url="https://shop.example/return",
        )
        return seen(await adapter.charge(order))

    async def find(self, adapter: Adapter, attempt: Attempt, reference: str = "") -> Seen:
        assert isinstance(adapter, CardCharge)
        return seen(await adapter.find_charge(OperationKey(attempt.key, reference)))


class Capture(Charge):
    """A capture of what was reserved; asked about by asking about the charge."""

    operation, movement = "capture", "charge"
    capture = False
    can_be_declined = False

    async def prepare(self, adapter: Adapter, attempt: Attempt) -> Seen:
        reserved = await Charge.send(self, adapter, attempt, None)
        assert reserved.state is State.DONE
        assert reserved.amount == attempt.amount
        return reserved

    async def send(self, adapter: Adapter, attempt: Attempt, prepared: Any) -> Seen:
        assert isinstance(adapter, CardCharge)
        key = OperationKey(attempt.key, prepared.reference)
        return seen(await adapter.capture(key, derive_uuid("capture", attempt.key), attempt.amount))

    async def find(self, adapter: Adapter, attempt: Attempt, reference: str = "") -> Seen:
        assert isinstance(adapter, CardCharge)
        outcome = await adapter.find_charge(OperationKey(attempt.key, reference))
        # Still only reserved: the capture is not there.
        return Seen(State.ABSENT) if outcome.state is OutcomeState.AUTHORIZED else seen(outcome)


class Payouts(Case):
    capability, operation, find_operation = "Payout", "payout", "find_payout"

    async def send(self, adapter: Adapter, attempt: Attempt, prepared: Any) -> Seen:
        del prepared
        assert isinstance(adapter, Payout)
        order = PayoutOrder(attempt.key, "pot_1", attempt.amount, attempt.values.fields["msisdn"], "Winnings")
        return seen(await adapter.payout(order))

    async def find(self, adapter: Adapter, attempt: Attempt, reference: str = "") -> Seen:
        assert isinstance(adapter, Payout)
        return seen(await adapter.find_payout(OperationKey(attempt.key, reference)))


class Refunds(Case):
    capability, operation, find_operation = "Refund", "refund", "find_refund"

    async def prepare(self, adapter: Adapter, attempt: Attempt) -> tuple[Attempt, str]:
        """A payment to give back."""
        case = Collect() if isinstance(adapter, WalletCollect) else Charge()
        paid = Attempt(attempt.amount, attempt.values)
        await case.send(adapter, paid, None)

        async def is_paid() -> Seen | None:
            found = await case.find(adapter, paid)
            return found if found.state is State.DONE else None

        return paid, (await eventually(is_paid)).reference

    async def send(self, adapter: Adapter, attempt: Attempt, prepared: Any) -> Seen:
        assert isinstance(adapter, Refund)
        paid, reference = prepared
        order = RefundOrder(
            attempt_key=attempt.key,
            refund_id="rfd_1",
            payment_id="pay_1",
            amount=attempt.amount,
            charge_reference=reference,
            charge_attempt_key=paid.key,
            payment_amount=paid.amount,
            description="Returned",
        )
        return seen(await adapter.refund(order))

    async def find(self, adapter: Adapter, attempt: Attempt, reference: str = "") -> Seen:
        assert isinstance(adapter, Refund)
        return seen(await adapter.find_refund(OperationKey(attempt.key, reference)))


class Balances(Question):
    capability, operation = "Balance", "balance"

    async def ask(self, adapter: Adapter, values: Values) -> object:
        del values
        assert isinstance(adapter, Balance)
        balances = await adapter.balances()
        assert balances
        assert len({balance.currency for balance in balances}) == len(balances)
        return balances


class Holders(Question):
    capability, operation = "HolderCheck", "holder_check"

    async def ask(self, adapter: Adapter, values: Values) -> object:
        assert isinstance(adapter, HolderCheck)
        assert await adapter.holder_is_active(values.fields["msisdn"]) is True
        assert await adapter.holder_is_active(values.fields["msisdn_without_wallet"]) is False
        return None


_ORDERS: dict[str, type] = {
    "collect": CollectOrder,
    "charge": ChargeOrder,
    "payout": PayoutOrder,
    "refund": RefundOrder,
}


async def call(adapter: Adapter, name: str, arguments: Mapping[str, Any]) -> object:
    """Makes the call of an example: `arguments` are the fields of its order or key."""
    values: dict[str, Any] = {
        key: Money(**value) if key.endswith("amount") else value for key, value in arguments.items()
    }
    if name in _ORDERS:
        parameters: list[Any] = [_ORDERS[name](**values)]
    elif name.startswith("find_"):
        parameters = [OperationKey(**values)]
    elif name in {"capture", "cancel"}:
        key = OperationKey(values.pop("attempt_key"), values.pop("reference", ""))
        parameters = [key, *values.values()]
    else:
        parameters = list(values.values())
    return await getattr(adapter, name)(*parameters)


DRIVER = Driver(
    domain="payments",
    cases=(Collect(), Charge(), Capture(), Payouts(), Refunds()),
    questions=(Balances(), Holders()),
    elsewhere=frozenset({"Webhooks"}),
    call=call,
)
