"""The port of payments: what a payment provider can do for us.

Each capability is a small interface; an adapter inherits those that its provider has. A decline is an Outcome; a doubt
is an exception of mesh.provider.errors. Every call that moves money carries an attempt_key made from our attempt id:
the adapter sends it as the provider's idempotency key, so that sending the same attempt again moves nothing twice.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mesh.money import Money
from mesh.provider.webhook import IncomingWebhook


class OutcomeState(enum.StrEnum):
    """Where the provider says an operation is."""

    # The provider has no such operation: it never arrived, and sending it is safe.
    NOT_FOUND = "not_found"
    PENDING = "pending"
    ACTION_REQUIRED = "action_required"
    AUTHORIZED = "authorized"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class FailureCode(enum.StrEnum):
    """Why an operation ended without money. The names of kente.payments.v1.Failure.Code."""

    UNKNOWN = "UNKNOWN"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    PAYER_REJECTED = "PAYER_REJECTED"
    PAYER_TIMED_OUT = "PAYER_TIMED_OUT"
    PAYER_UNKNOWN = "PAYER_UNKNOWN"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    DECLINED = "DECLINED"
    CARD_INVALID = "CARD_INVALID"
    FRAUD_SUSPECTED = "FRAUD_SUSPECTED"
    AUTHENTICATION_FAILED = "AUTHENTICATION_FAILED"
    REQUEST_REJECTED = "REQUEST_REJECTED"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    PROCESSING_ERROR = "PROCESSING_ERROR"


@dataclass(frozen=True, slots=True)
class ProviderFailure:
    """A decline.

    Attributes:
        message: safe to show to a payer.
        provider_code: the provider's own code, for support; empty when it gave none.
    """

    code: FailureCode
    message: str
    provider_code: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the provider says about one operation.

    Attributes:
        reference: the provider's id of it; empty when it gave none.
        amount: what the provider says was moved or reserved, to be compared with what we asked; None when it says
            nothing.
        failure: set when the state is FAILED, CANCELED or EXPIRED.
        redirect_url: where the payer must go, in state ACTION_REQUIRED.
        instructions: what to tell the payer while it is pending.
    """

    state: OutcomeState
    reference: str = ""
    amount: Money | None = None
    failure: ProviderFailure | None = None
    redirect_url: str = ""
    instructions: str = ""


@dataclass(frozen=True, slots=True)
class CollectOrder:
    """Ask a wallet's holder for money. `msisdn` is in E.164 form with the plus sign."""

    attempt_key: str
    payment_id: str
    amount: Money
    msisdn: str
    description: str


@dataclass(frozen=True, slots=True)
class ChargeOrder:
    """Charge a card. `capture` False only reserves."""

    attempt_key: str
    payment_id: str
    amount: Money
    card_token: str
    description: str
    capture: bool
    return_url: str
    receipt_email: str = ""


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """Give back money of an earlier collect or charge.

    Attributes:
        charge_reference: the provider's id of the payment.
        charge_attempt_key: our key of the payment, for providers that find it by that.
        payment_amount: what was captured, for providers that refund only in full or ask for it.
    """

    attempt_key: str
    refund_id: str
    payment_id: str
    amount: Money
    charge_reference: str
    charge_attempt_key: str
    payment_amount: Money
    description: str


@dataclass(frozen=True, slots=True)
class PayoutOrder:
    """Send money to a wallet. `msisdn` is in E.164 form with the plus sign."""

    attempt_key: str
    payout_id: str
    amount: Money
    msisdn: str
    description: str


@dataclass(frozen=True, slots=True)
class OperationKey:
    """How to find an operation again: by our key, and by the provider's reference once it is known.

    Attributes:
        not_before: when we saved the operation, aware; providers that can only list what they have are asked for
            what is no older. None makes them look through everything they are willing to list.
    """

    attempt_key: str
    reference: str = ""
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class WebhookReport:
    """What one callback says about one operation.

    Attributes:
        event_id: the provider's id of the event, for replay memory; derived from the body where there is none.
        attempt_key, reference: which operation; either may be empty, not both.
        operation: "collect", "charge", "refund" or "payout".
        outcome: what it says, or None when the callback proves nothing and the provider must be asked.
    """

    event_id: str
    operation: str
    attempt_key: str
    reference: str
    outcome: Outcome | None


class WalletCollect(ABC):
    """Takes money from a mobile wallet."""

    @abstractmethod
    async def collect(self, order: CollectOrder) -> Outcome:
        """Asks the holder to approve. PENDING is the usual answer."""

    @abstractmethod
    async def find_collect(self, key: OperationKey) -> Outcome:
        """Asks the provider how a collect stands; NOT_FOUND when it has none."""


class CardCharge(ABC):
    """Takes money from a card."""

    @abstractmethod
    async def charge(self, order: ChargeOrder) -> Outcome:
        """Charges or reserves."""

    @abstractmethod
    async def find_charge(self, key: OperationKey) -> Outcome:
        """Asks the provider how a charge stands; NOT_FOUND when it has none."""

    @abstractmethod
    async def capture(self, key: OperationKey, capture_key: str, amount: Money) -> Outcome:
        """Takes reserved money, at most what was authorized. `capture_key` is the idempotency key of this capture."""

    @abstractmethod
    async def cancel(self, key: OperationKey, cancel_key: str) -> Outcome:
        """Gives up a charge that took no money. `cancel_key` is the idempotency key of this cancellation."""


class Refund(ABC):
    """Gives money back."""

    @abstractmethod
    async def refund(self, order: RefundOrder) -> Outcome:
        """Gives back all or a part."""

    @abstractmethod
    async def find_refund(self, key: OperationKey) -> Outcome:
        """Asks the provider how a refund stands; NOT_FOUND when it has none."""


class Payout(ABC):
    """Sends money to a mobile wallet."""

    @abstractmethod
    async def payout(self, order: PayoutOrder) -> Outcome:
        """Sends money."""

    @abstractmethod
    async def find_payout(self, key: OperationKey) -> Outcome:
        """Asks the provider how a payout stands; NOT_FOUND when it has none."""


class Balance(ABC):
    """Knows how much of our money the provider holds."""

    @abstractmethod
    async def balances(self) -> Sequence[Money]:
        """What is available now, by currency."""


class HolderCheck(ABC):
    """Knows whether a wallet exists."""

    @abstractmethod
    async def holder_is_active(self, msisdn: str) -> bool:
        """Whether the number in E.164 form has a wallet that can be used."""


class Webhooks(ABC):
    """Calls us back."""

    @abstractmethod
    def read_webhook(self, webhook: IncomingWebhook) -> Sequence[WebhookReport]:
        """Checks and reads a callback; an event that does not concern money gives an empty list.

        Raises:
            WebhookUnverified: the signature is missing, wrong or too old.
        """


CAPABILITIES: tuple[type, ...] = (WalletCollect, CardCharge, Refund, Payout, Balance, HolderCheck, Webhooks)
