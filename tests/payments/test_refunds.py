"""Refunds through the contract: never more than was taken, whoever asks at once and whatever the line does."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kente.payments.v1 import payment_pb2, payment_service_pb2

from mesh.errors import Problem, Reason
from mesh.ids import derive_uuid
from tests.harness import eventually
from tests.payments.till import Till, money, new_request_id, refusal

Refund = payment_pb2.Refund


@pytest.fixture
async def paid(till: Till) -> payment_pb2.Payment:
    """A payment of GHS 10.50 that was taken and booked."""
    await till.clear_faults()
    return await till.ended((await till.create()).payment_id)


async def given_back(till: Till, refunds: list[payment_pb2.Refund]) -> list[str]:
    """Amounts that MTN gave back, in major units."""
    keys = [derive_uuid("refund", refund.refund_id) for refund in refunds]
    return [each["amount"] for each in await till.movements(keys, "refund")]


async def test_a_part_is_given_back_and_booked(till: Till, paid: payment_pb2.Payment) -> None:
    created = await till.refund(paid.payment_id, money(300), description="Broken cup")
    refund = await till.refund_ended(created)
    assert (refund.state, refund.ledger_state) == (Refund.STATE_SUCCEEDED, payment_pb2.Payment.LEDGER_STATE_POSTED)
    assert await given_back(till, [refund]) == ["3.00"]
    assert (await till.get(paid.payment_id)).refunded_amount == money(300)
    assert await till.balance("assets:providers:mtn_momo:ghs") == 750
    assert await till.balance("liabilities:merchant:ghs") == 750
    assert {entry.transaction_id for entry in await till.entries(paid.payment_id)} == {
        paid.ledger_transaction_id,
        refund.ledger_transaction_id,
    }


async def test_without_an_amount_all_that_is_left_is_given_back(till: Till, paid: payment_pb2.Payment) -> None:
    await till.refund(paid.payment_id, money(50))
    rest = await till.refund(paid.payment_id)
    assert rest.amount == money(1000)
    problem = await refusal(till.refund(paid.payment_id))
    assert problem.reason is Reason.REFUND_EXCEEDS_CAPTURE
    assert problem.metadata["refundable_amount_minor"] == "0"


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amounts=st.lists(st.integers(1, 1050), min_size=2, max_size=8))
async def test_refunds_at_once_never_exceed_what_was_taken(till: Till, amounts: list[int]) -> None:
    paid = await till.ended((await till.create()).payment_id)
    asked = [till.refund(paid.payment_id, money(amount)) for amount in amounts]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refunds = [answer for answer in answers if isinstance(answer, Refund)]
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refunds) + len(refused) == len(amounts)
    assert {Problem.from_rpc_error(error).reason for error in refused} <= {Reason.REFUND_EXCEEDS_CAPTURE}
    for refund in refunds:
        await till.refund_ended(refund)
    total = sum(refund.amount.amount_minor for refund in refunds)
    assert total <= 1050
    assert (await till.get(paid.payment_id)).refunded_amount == money(total)
    assert sum(Decimal(amount) for amount in await given_back(till, refunds)) == Decimal(total) / 100


async def test_two_refunds_of_most_of_it_can_not_both_pass(till: Till, paid: payment_pb2.Payment) -> None:
    asked = [till.refund(paid.payment_id, money(600)) for _ in range(2)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, Refund) for answer in answers) == 1


async def test_the_same_request_many_times_at_once_is_one_refund(till: Till, paid: payment_pb2.Payment) -> None:
    request_id = new_request_id()

    async def answered() -> payment_pb2.Refund:
        async def ask() -> payment_pb2.Refund | None:
            answers = await asyncio.gather(
                till.refund(paid.payment_id, money(100), request_id=request_id), return_exceptions=True
            )
            return answers[0] if isinstance(answers[0], Refund) else None

        found: payment_pb2.Refund = await eventually(ask)
        return found

    refunds = await asyncio.gather(*(answered() for _ in range(8)))
    assert len({refund.refund_id for refund in refunds}) == 1
    await till.refund_ended(refunds[0])
    assert await given_back(till, [refunds[0]]) == ["1.00"]
    assert (await till.get(paid.payment_id)).refunded_amount == money(100)


@pytest.mark.parametrize(
    "fault",
    ["timeout_after_commit", "reset_after_commit", "html_502", "truncated_json", "timeout_before", "storm_429"],
)
async def test_a_refund_over_a_broken_line_happens_once(till: Till, paid: payment_pb2.Payment, fault: str) -> None:
    await till.fault("refund", fault, count=2 if fault == "storm_429" else 1)
    refund = await till.refund_ended(await till.refund(paid.payment_id, money(200)))
    assert refund.state == Refund.STATE_SUCCEEDED
    assert await given_back(till, [refund]) == ["2.00"]


async def test_a_refund_that_fails_frees_its_amount(till: Till, paid: payment_pb2.Payment) -> None:
    await till.fault("refund", "decline")
    refund = await till.refund_ended(await till.refund(paid.payment_id))
    assert (refund.state, refund.failure.code) == (Refund.STATE_FAILED, payment_pb2.Failure.CODE_PAYER_UNKNOWN)
    assert (await till.get(paid.payment_id)).refunded_amount == money(0)
    again = await till.refund_ended(await till.refund(paid.payment_id))
    assert again.state == Refund.STATE_SUCCEEDED
    assert len(await till.entries(paid.payment_id)) == 4


async def test_only_taken_money_of_the_same_currency_can_be_given_back(till: Till, paid: payment_pb2.Payment) -> None:
    problem = await refusal(till.refund(paid.payment_id, money(100, "USD")))
    assert [violation.field for violation in problem.violations] == ["amount.currency"]
    declined = await till.ended((await till.create(msisdn="+233241234470")).payment_id)
    assert (await refusal(till.refund(declined.payment_id))).reason is Reason.STATE_CONFLICT
    assert (await refusal(till.refund("pay_" + "0" * 26))).reason is Reason.RESOURCE_NOT_FOUND


async def test_refunds_are_listed_newest_first(till: Till, paid: payment_pb2.Payment) -> None:
    created = [(await till.refund(paid.payment_id, money(10))).refund_id for _ in range(3)]
    request = payment_service_pb2.ListRefundsRequest(payment_id=paid.payment_id, page_size=2)
    first = await till.payments.ListRefunds(request)
    request.page_token = first.next_page_token
    second = await till.payments.ListRefunds(request)
    assert [refund.refund_id for refund in [*first.refunds, *second.refunds]] == created[::-1]
    assert not second.next_page_token
    other = payment_service_pb2.GetRefundRequest(payment_id="pay_" + "0" * 26, refund_id=created[0])
    assert (await refusal(till.payments.GetRefund(other))).reason is Reason.RESOURCE_NOT_FOUND
