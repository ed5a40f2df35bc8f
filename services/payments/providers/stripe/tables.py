"""Stripe's words and ours: declines, cancellations, refund failures, currencies."""

from __future__ import annotations

from services.payments.provider import FailureCode, OutcomeState

# status of a PaymentIntent. requires_payment_method with a last_payment_error is a failure.
CHARGE_STATES = {
    "requires_payment_method": OutcomeState.PENDING,
    "requires_confirmation": OutcomeState.PENDING,
    "requires_action": OutcomeState.ACTION_REQUIRED,
    "processing": OutcomeState.PENDING,
    "requires_capture": OutcomeState.AUTHORIZED,
    "succeeded": OutcomeState.SUCCEEDED,
    "canceled": OutcomeState.CANCELED,
}
# status of a refund.
REFUND_STATES = {
    "pending": OutcomeState.PENDING,
    "requires_action": OutcomeState.PENDING,
    "succeeded": OutcomeState.SUCCEEDED,
    "failed": OutcomeState.FAILED,
    "canceled": OutcomeState.CANCELED,
}

# decline_code, or code where there is none, of a card_error (docs.stripe.com/declines/codes, checked 2026-11).
FAILURES: dict[str, FailureCode] = {
    "insufficient_funds": FailureCode.INSUFFICIENT_FUNDS,
    "card_velocity_exceeded": FailureCode.LIMIT_EXCEEDED,
    "withdrawal_count_limit_exceeded": FailureCode.LIMIT_EXCEEDED,
    "invalid_amount": FailureCode.LIMIT_EXCEEDED,
    "amount_too_large": FailureCode.LIMIT_EXCEEDED,
    "amount_too_small": FailureCode.LIMIT_EXCEEDED,
    "authentication_required": FailureCode.AUTHENTICATION_FAILED,
    "authentication_not_handled": FailureCode.AUTHENTICATION_FAILED,
    "mobile_device_authentication_required": FailureCode.AUTHENTICATION_FAILED,
    "payment_intent_authentication_failure": FailureCode.AUTHENTICATION_FAILED,
    "expired_card": FailureCode.CARD_INVALID,
    "incorrect_cvc": FailureCode.CARD_INVALID,
    "invalid_cvc": FailureCode.CARD_INVALID,
    "incorrect_number": FailureCode.CARD_INVALID,
    "invalid_number": FailureCode.CARD_INVALID,
    "incorrect_zip": FailureCode.CARD_INVALID,
    "incorrect_address": FailureCode.CARD_INVALID,
    "incorrect_pin": FailureCode.CARD_INVALID,
    "invalid_pin": FailureCode.CARD_INVALID,
    "invalid_expiry_month": FailureCode.CARD_INVALID,
    "invalid_expiry_year": FailureCode.CARD_INVALID,
    "invalid_account": FailureCode.CARD_INVALID,
    "new_account_information_available": FailureCode.CARD_INVALID,
    "card_not_supported": FailureCode.CARD_INVALID,
    "currency_not_supported": FailureCode.CARD_INVALID,
    "processing_error": FailureCode.PROCESSING_ERROR,
    "issuer_not_available": FailureCode.PROCESSING_ERROR,
    "reenter_transaction": FailureCode.PROCESSING_ERROR,
    "try_again_later": FailureCode.PROCESSING_ERROR,
    "approve_with_id": FailureCode.PROCESSING_ERROR,
    # Stripe asks not to tell the payer these four apart from a plain decline.
    "fraudulent": FailureCode.DECLINED,
    "lost_card": FailureCode.DECLINED,
    "stolen_card": FailureCode.DECLINED,
    "merchant_blacklist": FailureCode.DECLINED,
    "generic_decline": FailureCode.DECLINED,
    "card_declined": FailureCode.DECLINED,
    "do_not_honor": FailureCode.DECLINED,
    "do_not_try_again": FailureCode.DECLINED,
    "call_issuer": FailureCode.DECLINED,
    "duplicate_transaction": FailureCode.DECLINED,
    "no_action_taken": FailureCode.DECLINED,
    "not_permitted": FailureCode.DECLINED,
    "pickup_card": FailureCode.DECLINED,
    "pin_try_exceeded": FailureCode.DECLINED,
    "restricted_card": FailureCode.DECLINED,
    "revocation_of_all_authorizations": FailureCode.DECLINED,
    "revocation_of_authorization": FailureCode.DECLINED,
    "security_violation": FailureCode.DECLINED,
    "service_not_allowed": FailureCode.DECLINED,
    "stop_payment_order": FailureCode.DECLINED,
    "testmode_decline": FailureCode.DECLINED,
    "transaction_not_allowed": FailureCode.DECLINED,
}

# What a payer may read, by our code; Stripe's own messages are for developers in part.
MESSAGES: dict[FailureCode, str] = {
    FailureCode.INSUFFICIENT_FUNDS: "The card has insufficient funds.",
    FailureCode.LIMIT_EXCEEDED: "A limit of the card or of the processor is exceeded.",
    FailureCode.AUTHENTICATION_FAILED: "The bank's authentication was not completed.",
    FailureCode.CARD_INVALID: "The card's data is wrong, or the card can't be used for this.",
    FailureCode.PROCESSING_ERROR: "The card could not be processed. Try again later.",
    FailureCode.DECLINED: "The card was declined.",
    FailureCode.REQUEST_REJECTED: "The processor refused the request.",
    FailureCode.PAYER_REJECTED: "The payment was canceled.",
    FailureCode.PAYER_TIMED_OUT: "The payment was not completed in time.",
    FailureCode.FRAUD_SUSPECTED: "The card was declined.",
    FailureCode.UNKNOWN: "The card was declined.",
}

# cancellation_reason of a canceled PaymentIntent.
CANCELLATIONS: dict[str, FailureCode] = {
    "requested_by_customer": FailureCode.PAYER_REJECTED,
    "duplicate": FailureCode.PAYER_REJECTED,
    "fraudulent": FailureCode.FRAUD_SUSPECTED,
    "abandoned": FailureCode.PAYER_TIMED_OUT,
    # An authorization that nobody captured lapses after about seven days.
    "automatic": FailureCode.PAYER_TIMED_OUT,
}

# failure_reason of a refund.
REFUND_FAILURES: dict[str, FailureCode] = {
    "insufficient_funds": FailureCode.INSUFFICIENT_FUNDS,
    "lost_or_stolen_card": FailureCode.CARD_INVALID,
    "expired_or_canceled_card": FailureCode.CARD_INVALID,
    "declined": FailureCode.DECLINED,
    "merchant_request": FailureCode.PAYER_REJECTED,
    "charge_for_pending_refund_disputed": FailureCode.REQUEST_REJECTED,
}

# Decimals that Stripe counts with where they are not those of ISO 4217 (docs.stripe.com/currencies): ISK is charged in
# whole units but written with two decimals, MGA the other way round.
EXPONENTS = {"ISK": 2, "MGA": 0}

# UGX is left out: sources disagree whether 500 is 500 or 5 shillings, and a guess would be wrong by a hundred.
_CODES = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CLP CNY COP "
    "CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR ISK JMD "
    "JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN "
    "NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD SZL "
    "THB TJS TND TOP TRY TTD TWD TZS UAH USD UYU UZS VND VUV WST XAF XCD XOF XPF YER ZAR ZMW"
)
# Presentment currencies (docs.stripe.com/currencies).
CURRENCIES = frozenset(_CODES.split())
