"""Where providers are learnt from, and what happens while a domain is away."""

from __future__ import annotations

import asyncio
import time

import pytest

from mesh.ids import new_id
from tests.connections.conftest import LIMITS
from tests.connections.desk import Desk, refusal
from tests.connections.listers import MTN_MOMO, SMTP, STRIPE, Lister
from tests.harness import TestMesh


@pytest.fixture
async def fresh(connections: TestMesh, payments: Lister, notifications: Lister) -> Desk:
    """A service that has asked nobody yet, while everybody answers."""
    await connections.stop("connections")
    for lister, providers in ((payments, [MTN_MOMO, STRIPE]), (notifications, [SMTP])):
        await lister.stop()
        lister.providers, lister.asked = providers, 0
        lister.answers.set()
        await lister.start()
    await connections.start("connections", LIMITS)
    return Desk(connections, new_id("ten"))


async def test_all_pages_are_read_once_and_then_remembered(
    fresh: Desk, payments: Lister, notifications: Lister
) -> None:
    for provider, credentials in (("stripe", {"secret_key": "sk"}), ("smtp", {}), ("smtp", {})):
        await fresh.create(provider, credentials=credentials)

    assert (payments.asked, notifications.asked) == (2, 1)


async def test_a_provider_is_found_while_another_domain_is_away(fresh: Desk, payments: Lister) -> None:
    await payments.stop()

    assert (await fresh.create("smtp")).domain == "notifications"


async def test_a_provider_is_not_called_unknown_while_a_domain_is_away(fresh: Desk, payments: Lister) -> None:
    await payments.stop()

    problem = await refusal(fresh.create("mtn_momo"))

    assert problem.reason_name == "SERVICE_UNAVAILABLE"
    assert problem.retry_after_seconds
    assert problem.metadata == {"provider": "mtn_momo", "services": "payments"}

    await payments.start()
    assert (await fresh.create("mtn_momo")).domain == "payments"


async def test_an_answer_is_remembered_while_its_domain_is_away(fresh: Desk, payments: Lister) -> None:
    await fresh.create("mtn_momo")
    await payments.stop()

    assert (await fresh.create("mtn_momo")).domain == "payments"


async def test_a_domain_that_hangs_does_not_use_up_the_callers_patience(fresh: Desk, payments: Lister) -> None:
    payments.answers.clear()
    started = time.monotonic()
    try:
        created, problem = await asyncio.gather(fresh.create("smtp"), refusal(fresh.create("mtn_momo")))
    finally:
        payments.answers.set()

    assert time.monotonic() - started < 8
    assert created.domain == "notifications"
    assert problem.reason_name == "SERVICE_UNAVAILABLE"


async def test_a_provider_that_two_domains_list_is_the_first_ones(fresh: Desk, notifications: Lister) -> None:
    notifications.providers = [SMTP, STRIPE]

    assert (await fresh.create("stripe", credentials={"secret_key": "sk"})).domain == "payments"
