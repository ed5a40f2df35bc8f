"""What every adapter must do, each against its own simulator over real HTTP."""

from __future__ import annotations

import asyncio

import pytest

from mesh.money import exponent_of
from mesh.provider.adapter import AmountFormat
from mesh.provider.connection import Environment
from mesh.provider.errors import BadCredentials, NotSent, RateLimited
from mesh.provider.facts import faults_of
from mesh.provider.registry import Registry
from mesh.sandbox.faults import Fault
from mesh.sandbox.server import Sandbox
from tests.providers.conftest import Bench
from tests.providers.contract import Attempt, Case, Provider, Question, State, Values, driver_of


def test_facts_are_complete_and_the_folder_has_the_slugs_name(provider: Provider) -> None:
    registry = Registry(provider.domain)

    assert faults_of(registry.adapter_class(provider.slug), provider.folder.name, registry.capabilities) == []


def test_the_folder_says_what_to_exercise_the_provider_with(provider: Provider) -> None:
    values = Values.of(provider.folder)
    adapter_class = Registry(provider.domain).adapter_class(provider.slug)

    if adapter_class.amount_format is not AmountFormat.NONE:
        assert {str(order["currency"]) for order in values.orders} <= (adapter_class.currencies or {"any"})


def test_every_capability_is_exercised_by_the_suite(provider: Provider) -> None:
    can = set(Registry(provider.domain).capabilities_of(provider.slug))

    assert can - driver_of(provider.domain).capabilities == set()


def test_every_simulator_names_the_operations_of_its_adapter(provider: Provider, sandbox: Sandbox) -> None:
    assert provider.slug in sandbox.simulators
    assert sandbox.simulators[provider.slug].magic_values != {}


async def test_an_operation_succeeds_and_moves_money_once(bench: Bench, case: Case) -> None:
    adapter, attempt = bench.adapter(), bench.attempt()
    prepared = await case.prepare(adapter, attempt)

    first = await case.send(adapter, attempt, prepared)
    end = await bench.end(case, adapter, attempt)

    assert first.state in {State.PENDING, State.DONE}
    assert end.state is State.DONE
    assert end.amount in {attempt.amount, None}
    assert bench.moved(case) == 1


async def test_an_operation_is_found_by_the_providers_reference_too(bench: Bench, case: Case) -> None:
    adapter, attempt = bench.adapter(), bench.attempt()
    await case.send(adapter, attempt, await case.prepare(adapter, attempt))
    end = await bench.end(case, adapter, attempt)

    assert await case.find(adapter, attempt, end.reference) == end


async def test_what_was_never_sent_is_absent(bench: Bench, case: Case) -> None:
    found = await case.find(bench.adapter(), bench.attempt())

    assert found.state is State.ABSENT


async def test_a_question_is_answered(bench: Bench, question: Question) -> None:
    await question.ask(bench.adapter(), bench.values)


async def test_a_decline_is_a_value_with_its_reason(bench: Bench, case: Case) -> None:
    if not case.can_be_declined:
        return
    adapter, attempt = bench.adapter(), bench.attempt()
    prepared = await case.prepare(adapter, attempt)
    before = bench.moved(case)
    bench.plan(case.operation, Fault.DECLINE)

    first = await case.send(adapter, attempt, prepared)
    end = first if first.state is State.REFUSED else await bench.end(case, adapter, attempt, first.reference)

    assert end.state is State.REFUSED
    assert ":" in end.why
    assert bench.moved(case) == before


async def test_amounts_come_back_as_they_were_sent(bench: Bench, case: Case) -> None:
    for index, order in enumerate(bench.values.orders):
        adapter, attempt = bench.adapter(settings=order.get("settings") or {}), bench.attempt(index)
        await case.send(adapter, attempt, await case.prepare(adapter, attempt))
        end = await bench.end(case, adapter, attempt)

        assert end.state is State.DONE
        assert end.amount in {attempt.amount, None}


def test_amounts_are_exercised_for_every_number_of_decimals_that_the_provider_takes(provider: Provider) -> None:
    adapter_class = Registry(provider.domain).adapter_class(provider.slug)
    if adapter_class.amount_format is AmountFormat.NONE:
        return
    taken = {exponent_of(code) for code in adapter_class.currencies} if adapter_class.currencies else {0, 2, 3}
    exercised = {exponent_of(str(order["currency"])) for order in Values.of(provider.folder).orders}

    assert taken & {0, 2, 3} <= exercised


async def test_the_same_key_again_moves_nothing_twice(bench: Bench, case: Case) -> None:
    adapter, attempt = bench.adapter(), bench.attempt()
    prepared = await case.prepare(adapter, attempt)
    before = bench.moved(case)

    await case.send(adapter, attempt, prepared)
    again = await case.send(adapter, attempt, prepared)
    await bench.end(case, adapter, attempt)
    after_the_end = await case.send(adapter, attempt, prepared)

    assert again.state in {State.PENDING, State.DONE}
    assert after_the_end.state is State.DONE
    assert bench.moved(case) == before + (1 if case.key_is_kept else 3)


async def test_the_same_key_at_the_same_time_moves_nothing_twice(bench: Bench, case: Case) -> None:
    if not case.key_is_kept:
        return
    adapter, attempt = bench.adapter(), bench.attempt()
    prepared = await case.prepare(adapter, attempt)
    before = bench.moved(case)

    await asyncio.gather(*(case.send(adapter, attempt, prepared) for _ in range(5)))
    end = await bench.end(case, adapter, attempt)

    assert end.state is State.DONE
    assert bench.moved(case) == before + 1


async def test_wrong_credentials_are_told_and_nothing_moves(bench: Bench, case: Case) -> None:
    right = bench.registry.adapter_class(bench.provider.slug).sandbox_credentials
    attempt = bench.attempt()
    prepared = await case.prepare(bench.adapter(), attempt)
    before = bench.moved(case)
    for name in right:
        wrong = bench.adapter(credentials={**right, name: f"{right[name][:-1]}x"})
        try:
            await case.send(wrong, attempt, prepared)
        except BadCredentials:
            assert bench.moved(case) == before
            continue
        # A credential that this operation does not use.
        break
    else:
        return
    assert bench.moved(case) <= before + 1


async def test_missing_credentials_are_named(bench: Bench) -> None:
    given = bench.registry.adapter_class(bench.provider.slug).sandbox_credentials

    with pytest.raises(BadCredentials, match=r"surprise is unknown") as refused:
        bench.adapter(credentials={**given, "surprise": "value-that-stays-secret"})

    assert "value-that-stays-secret" not in str(refused.value)


async def test_a_provider_that_is_not_there_means_not_sent(bench: Bench, case: Case) -> None:
    prepared = await case.prepare(bench.adapter(), attempt := bench.attempt())
    own = bench.registry.adapter_class(bench.provider.slug).base_urls[Environment.SANDBOX]
    scheme = own.partition(":")[0].replace("https", "http")
    adapter = bench.adapter(base_url=f"{scheme}://127.0.0.1:9")

    with pytest.raises(NotSent):
        await case.send(adapter, attempt, prepared)


async def test_a_storm_of_429_is_waited_out_or_told(bench: Bench, case: Case) -> None:
    adapter, attempt = bench.adapter(), bench.attempt()
    prepared = await case.prepare(adapter, attempt)
    before = bench.moved(case)
    bench.plan(case.operation, Fault.STORM_429, None)

    with pytest.raises(RateLimited) as limited:
        await case.send(adapter, attempt, prepared)

    assert limited.value.retry_after_seconds > 0
    assert bench.moved(case) == before
    bench.sandbox.faults.clear()
    await case.send(adapter, attempt, prepared)
    await bench.end(case, adapter, attempt)
    assert bench.moved(case) == before + 1


def test_an_attempt_has_a_key_of_its_own() -> None:
    values = Values([{}], {})

    assert Attempt(values.amount({}), values).key != Attempt(values.amount({}), values).key
