"""What the simulated numbers do.

The scenarios of 46733123450 to 46733123464 and of the refund ids "1" to "13" are MTN's own (momodeveloper.mtn.com,
Testing). Those for numbers of Ghana, by their last three digits, and the ones that break the line are this sandbox's.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.sandbox.faults import Fault

# Currencies that each X-Target-Environment takes, the usual one first.
CURRENCIES: dict[str, tuple[str, ...]] = {
    "sandbox": ("EUR",),
    "mtnghana": ("GHS",),
    "mtnuganda": ("UGX",),
    "mtnivorycoast": ("XOF",),
    "mtnzambia": ("ZMW",),
    "mtncameroon": ("XAF",),
    "mtnbenin": ("XOF",),
    "mtncongo": ("XAF",),
    "mtnswaziland": ("SZL",),
    "mtnguineaconakry": ("GNF",),
    "mtnsouthafrica": ("ZAR",),
    "mtnliberia": ("LRD", "USD"),
    "mtnsouthsudan": ("SSP",),
    "mtnnigeria": ("NGN",),
    "mtnrwanda": ("RWF",),
}

# Fields of an order that its resource repeats.
_COMMON = ("amount", "currency", "externalId", "payerMessage", "payeeNote")
FIELDS = {
    "collect": (*_COMMON, "payer"),
    "payout": (*_COMMON, "payee"),
    "refund": (*_COMMON, "referenceIdToRefund"),
}

# How the fault "decline" is worded.
DECLINE_REASONS = {"collect": "NOT_ENOUGH_FUNDS", "payout": "PAYER_LIMIT_REACHED", "refund": "PAYEE_NOT_FOUND"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """How an order goes.

    Attributes:
        reason: why it fails, or empty.
        refusal_status: HTTP status when it is refused at once; 0 when it is accepted first.
        slowness: how many times the usual approval takes.
        endless: never decided.
    """

    reason: str = ""
    refusal_status: int = 0
    slowness: float = 1.0
    endless: bool = False


_REFUSED = {
    "NOT_ALLOWED": 500,
    "NOT_ALLOWED_TARGET_ENVIRONMENT": 500,
    "INVALID_CALLBACK_URL_HOST": 500,
    "INVALID_CURRENCY": 500,
    "INTERNAL_PROCESSING_ERROR": 500,
    "SERVICE_UNAVAILABLE": 503,
}
_ONGOING, _DELAYED = Scenario(endless=True), Scenario(slowness=10.0)


def _scenario(word: str) -> Scenario:
    if word == "ONGOING":
        return _ONGOING
    if word == "DELAYED":
        return _DELAYED
    return Scenario(reason=word, refusal_status=_REFUSED.get(word, 0))


# The scenario by the last two digits of 467331234xx, MTN's own.
_COLLECT = {
    50: "INTERNAL_PROCESSING_ERROR_LATER",
    51: "APPROVAL_REJECTED",
    52: "EXPIRED",
    53: "ONGOING",
    54: "DELAYED",
    55: "PAYER_NOT_FOUND",
    56: "PAYEE_NOT_ALLOWED_TO_RECEIVE",
    57: "NOT_ALLOWED",
    58: "NOT_ALLOWED_TARGET_ENVIRONMENT",
    59: "INVALID_CALLBACK_URL_HOST",
    60: "INVALID_CURRENCY",
    61: "INTERNAL_PROCESSING_ERROR",
    62: "SERVICE_UNAVAILABLE",
    63: "COULD_NOT_PERFORM_TRANSACTION",
    64: "TRANSFER_TYPE_UNKNOWN",
}
_PAYOUT = {
    50: "INTERNAL_PROCESSING_ERROR_LATER",
    51: "APPROVAL_REJECTED",
    52: "EXPIRED",
    53: "ONGOING",
    54: "DELAYED",
    55: "NOT_ENOUGH_FUNDS",
    56: "PAYER_LIMIT_REACHED",
    57: "PAYEE_NOT_FOUND",
    58: "NOT_ALLOWED",
    59: "NOT_ALLOWED_TARGET_ENVIRONMENT",
    60: "INVALID_CALLBACK_URL_HOST",
    61: "INVALID_CURRENCY",
    62: "INTERNAL_PROCESSING_ERROR",
    63: "SERVICE_UNAVAILABLE",
    64: "TRANSFER_TYPE_UNKNOWN",
}
# The scenario by referenceIdToRefund, MTN's own.
_REFUND = {
    1: "RESOURCE_NOT_FOUND",
    2: "INTERNAL_PROCESSING_ERROR_LATER",
    3: "APPROVAL_REJECTED",
    4: "EXPIRED",
    5: "ONGOING",
    6: "DELAYED",
    7: "NOT_ALLOWED",
    8: "NOT_ALLOWED_TARGET_ENVIRONMENT",
    9: "INVALID_CALLBACK_URL_HOST",
    10: "INVALID_CURRENCY",
    11: "INTERNAL_PROCESSING_ERROR",
    12: "SERVICE_UNAVAILABLE",
    13: "COULD_NOT_PERFORM_TRANSACTION",
}
# More scenarios, by the last three digits of a number of Ghana, for what MTN has no test number for.
_MORE = {470: "NOT_ENOUGH_FUNDS", 471: "PAYER_LIMIT_REACHED"}
# What breaks the line, by the last three digits of a number of Ghana: the fault and how often for one order.
_FAULTS = {
    480: (Fault.TIMEOUT_AFTER_COMMIT, 1),
    481: (Fault.RESET_AFTER_COMMIT, 1),
    482: (Fault.HTML_502, 1),
    483: (Fault.TRUNCATED_JSON, 1),
    484: (Fault.STORM_429, 2),
    485: (Fault.TIMEOUT_BEFORE, 1),
    486: (Fault.NO_CALLBACK, 1),
    487: (Fault.LATE_CALLBACK, 1),
    488: (Fault.DUPLICATE_CALLBACK, 1),
    489: (Fault.OUT_OF_ORDER_CALLBACK, 1),
}

_SWEDEN, _GHANA, _TEST_NUMBERS = "46", "233", "467331234"


def of(operation: str, party_or_refund_id: str) -> Scenario:
    """The scenario of an order, by its party's number or, for a refund, by the payment it gives back."""
    if operation == "refund":
        word = _REFUND.get(int(party_or_refund_id)) if is_magic_refund(party_or_refund_id) else None
    else:
        word = _word_of_number(_COLLECT if operation == "collect" else _PAYOUT, party_or_refund_id)
    if not word:
        return Scenario()
    if word == "RESOURCE_NOT_FOUND":
        return Scenario(reason=word, refusal_status=404)
    if word.endswith("_LATER"):
        return Scenario(reason=word.removesuffix("_LATER"))
    return _scenario(word)


def is_magic_refund(reference: object) -> bool:
    """Whether it is one of the ids "1" to "13"."""
    return str(reference) in {str(number) for number in _REFUND}


def holder_is_active(party_id: str) -> bool | None:
    """Whether a wallet is active; None when there is none."""
    ending = _ending(party_id)
    if ending == 450:  # noqa: PLR2004 - AccountHolderActiveMsisdnNotFound
        return None
    return ending != 451  # noqa: PLR2004 - AccountHolderActiveMsisdnNotActive


def fault_of(party_id: str) -> tuple[Fault | None, int]:
    """What breaks the line for a number, and how often for one order."""
    if not party_id.startswith(_GHANA):
        return None, 0
    return _FAULTS.get(_ending(party_id) or 0, (None, 0))


def _word_of_number(words: dict[int, str], party_id: str) -> str | None:
    ending = _ending(party_id)
    if ending is None:
        return None
    # 467331234 50 is ...450: the same scenario as a number of Ghana that ends so.
    return words.get(ending - 400) or (_MORE.get(ending) if party_id.startswith(_GHANA) else None)


def _ending(party_id: str) -> int | None:
    """The last three digits of a number that can be magic."""
    if party_id.isdigit() and party_id.startswith((_TEST_NUMBERS, _GHANA)):
        return int(party_id[-3:])
    return None


def _describe() -> dict[str, str]:
    described = {
        f"{_GHANA}…4{digits}": f"collect: {_COLLECT[digits]}; payout: {_PAYOUT[digits]}".replace("_LATER", "").lower()
        for digits in sorted(_COLLECT)
    }
    described |= {f"{_GHANA}…{ending}": word.lower() for ending, word in _MORE.items()}
    described |= {f"{_GHANA}…{ending}": fault.value for ending, (fault, _) in _FAULTS.items()}
    described |= {f"{_TEST_NUMBERS}50 to 64": "as 233…450 to 464, in EUR"}
    return described


DESCRIPTIONS = _describe()
