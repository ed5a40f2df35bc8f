"""What the demo does, and what it expects of the mesh at each step."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from mesh.cli.demo_client import Answer, DemoClient, DemoError, until
from mesh.cli.demo_proof import ProofFiles, facts_of, verdicts_of, verify
from mesh.cli.demo_report import Check, Json, Report, Scenario, View
from mesh.cli.demo_traces import Span, by_process, hops_of, is_complete, read_spans
from mesh.money import Money

PROVIDER: Final = "mtn_momo"
PAYER_MSISDN: Final = "+233241234567"
PAYER_EMAIL: Final = "ama@example.com"
# A number for which the simulated provider finds too little money.
POOR_MSISDN: Final = "+233241234470"
# A number whose payer takes longer to approve than the connection waits for an answer.
SLOW_MSISDN: Final = "+233241234454"
AMOUNT: Final = Money(1050, "GHS")
REFUND: Final = Money(350, "GHS")
_SETTLED: Final = frozenset({"STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELED", "STATE_EXPIRED"})
_DEBIT_TYPES: Final = frozenset({"TYPE_ASSET", "TYPE_EXPENSE"})
# How long nothing is looked for before it counts as not there.
_ABSENCE_SECONDS = 1.0


class Demo:
    """The four stories, one after another."""

    def __init__(self, client: DemoClient, view: View) -> None:
        """Use the demo tenant of a running mesh."""
        self._client = client
        self._view = view
        self._started = time.monotonic()
        self._begin = self._started
        self._scenarios: list[Scenario] = []

    async def run(self) -> Report:
        """Run all.

        Raises:
            DemoError: one could not go on; `broken_off` then reports.
        """
        payment_id = ""

        async def approved(scenario: Scenario) -> None:
            nonlocal payment_id
            payment_id = await self._approved(scenario)

        await self._tell("approved", "A wallet payment that the payer approves", approved)
        await self._tell("declined", "A payment that the provider declines", self._declined)
        await self._tell("timed_out", "A provider that charges and then does not answer", self._timed_out)
        await self._tell("refunded", "A partial refund of the first payment", lambda s: self._refunded(s, payment_id))
        return Report(self._scenarios, time.monotonic() - self._started)

    def broken_off(self, error: str) -> Report:
        """The report when a scenario could not go on."""
        return Report(self._scenarios, time.monotonic() - self._started, error)

    async def _tell(self, name: str, title: str, story: Callable[[Scenario], Awaitable[None]]) -> None:
        scenario = Scenario(name, title)
        self._scenarios.append(scenario)
        self._begin = time.monotonic()
        self._view.begin(scenario)
        try:
            await story(scenario)
        finally:
            scenario.seconds = time.monotonic() - self._begin
            self._view.end(scenario)

    def _step(self, scenario: Scenario, where: str, what: str) -> None:
        at_seconds = time.monotonic() - self._begin
        scenario.steps.append((at_seconds, where, what))
        self._view.step(at_seconds, where, what)

    async def _approved(self, scenario: Scenario) -> str:
        before = await self._client.charges(PROVIDER)
        answer = await self._create(scenario, PAYER_MSISDN, _new_reference())
        payment = await self._follow(scenario, answer.body["payment"])
        payment_id: str = payment["paymentId"]
        payment = await self._wait_for_ledger(scenario, payment)
        callbacks = await self._wait_for_callback(scenario, payment_id)
        entries = await self._entries(scenario, payment_id)
        receipts = await self._wait_for_receipt(scenario, payment)
        events = await self._wait_for_events(scenario, payment_id)
        after = await self._client.charges(PROVIDER)
        attempts = payment["attempts"]
        scenario.facts |= {
            "payment": payment,
            "route": payment["route"],
            "providerReference": attempts[-1].get("providerReference", ""),
            "callbacks": callbacks,
            "ledgerEntries": entries,
            "events": [_event_facts(event) for event in events],
            "receipts": receipts,
        }
        scenario.checks += [
            Check("the payment succeeded", payment["state"] == "STATE_SUCCEEDED"),
            Check("the amount was captured", _minor(payment.get("capturedAmount")) == AMOUNT.amount_minor),
            Check("one attempt was made", len(attempts) == 1),
            Check("the provider charged once", after.get("collect", 0) - before.get("collect", 0) == 1),
            Check("the provider called back", bool(callbacks)),
            Check("the ledger has one posting of two entries", len(entries) == 2 and _one_transaction(entries)),  # noqa: PLR2004 - as it says
            Check("its entries sum to zero", _sum(entries) == 0),
            Check("the payer got one receipt", len(receipts) == 1),
            Check("one event says that it succeeded", _count(events, "payments.payment.succeeded") == 1),
        ]
        await self._check_book(scenario)
        await self._prove(scenario, payment["ledgerTransactionId"])
        await self._find_time(scenario, answer, events)
        return payment_id

    async def _declined(self, scenario: Scenario) -> None:
        before = await self._client.charges(PROVIDER)
        answer = await self._create(scenario, POOR_MSISDN, _new_reference())
        payment = await self._follow(scenario, answer.body["payment"])
        payment_id = payment["paymentId"]
        failure = payment.get("failure", {})
        self._step(scenario, PROVIDER, f"declined: {_word(failure.get('code', ''))}, {failure.get('message', '')}")
        await asyncio.sleep(_ABSENCE_SECONDS)
        entries = await self._client.pages("/v1/ledger/entries", "entries", sourceId=payment_id)
        after = await self._client.charges(PROVIDER)
        scenario.facts |= {"payment": payment, "failure": failure, "ledgerEntries": entries}
        scenario.checks += [
            Check("the payment failed", payment["state"] == "STATE_FAILED"),
            Check("the cause is the payer's balance", failure.get("code") == "CODE_INSUFFICIENT_FUNDS"),
            Check("the provider charged nothing", after.get("collect", 0) == before.get("collect", 0)),
            Check("nothing is in the ledger", not entries),
            Check("no receipt was sent", not await self._receipts(payment)),
        ]
        await self._check_book(scenario)

    async def _timed_out(self, scenario: Scenario) -> None:
        await self._client.arm_fault(PROVIDER, "collect", "timeout_after_commit")
        self._step(scenario, "sandbox", f"{PROVIDER} will take the next charge and never answer")
        try:
            before = await self._client.charges(PROVIDER)
            payment = await self._follow_while_created(scenario)
        finally:
            await self._client.disarm_faults(PROVIDER)
        callbacks = await self._client.callbacks(payment["paymentId"])
        payment = await self._wait_for_ledger(scenario, payment)
        entries = await self._entries(scenario, payment["paymentId"])
        receipts = await self._wait_for_receipt(scenario, payment)
        after = await self._client.charges(PROVIDER)
        charged = after.get("collect", 0) - before.get("collect", 0)
        self._step(scenario, "sandbox", f"{PROVIDER} counts {charged} charge")
        scenario.facts |= {
            "payment": payment,
            "callbacks": callbacks,
            "chargesBefore": before,
            "chargesAfter": after,
            "ledgerEntries": entries,
            "receipts": receipts,
        }
        scenario.checks += [
            Check("the payment succeeded all the same", payment["state"] == "STATE_SUCCEEDED"),
            Check("the provider charged exactly once", charged == 1),
            Check("one attempt was made, none besides it", len(payment["attempts"]) == 1),
            Check("the ledger has one posting", len(entries) == 2 and _one_transaction(entries)),  # noqa: PLR2004 - two legs
            Check("its entries sum to zero", _sum(entries) == 0),
            Check("the payer got one receipt", len(receipts) == 1),
        ]
        await self._check_book(scenario)

    async def _refunded(self, scenario: Scenario, payment_id: str) -> None:
        before = await self._client.charges(PROVIDER)
        body = {"amount": _money(REFUND), "description": "One item came back"}
        answer = await self._client.post(f"/v1/payments/{payment_id}/refunds", body)
        refund = answer.body["refund"]
        path = f"/v1/payments/{payment_id}/refunds/{refund['refundId']}"
        self._step(scenario, "gateway", _rest(answer, "POST", f"/v1/payments/…/refunds: {refund['refundId']}"))
        self._view.waiting("the provider gives the money back")

        async def booked() -> Json | None:
            found: Json = (await self._client.get(path))["refund"]
            over = found["state"] == "STATE_FAILED" or found.get("ledgerState") == "LEDGER_STATE_POSTED"
            return found if over else None

        refund = await until("the refund is given back and booked", booked)
        self._step(scenario, PROVIDER, f"{_word(refund['state'])}, reference {refund.get('providerReference', '')}")
        self._step(scenario, "ledger", f"posted as {refund.get('ledgerTransactionId', '')}")
        entries = await self._entries(scenario, payment_id)
        payment: Json = (await self._client.get(f"/v1/payments/{payment_id}"))["payment"]
        after = await self._client.charges(PROVIDER)
        own = [entry for entry in entries if entry["transactionId"] == refund.get("ledgerTransactionId")]
        scenario.facts |= {"refund": refund, "payment": payment, "ledgerEntries": own}
        scenario.checks += [
            Check("the refund succeeded", refund["state"] == "STATE_SUCCEEDED"),
            Check("the provider gave back once", after.get("refund", 0) - before.get("refund", 0) == 1),
            Check(
                "the payment knows what was given back", _minor(payment.get("refundedAmount")) == REFUND.amount_minor
            ),
            Check("the ledger has the refund's two entries", len(own) == 2),  # noqa: PLR2004 - as it says
            Check("they sum to zero", _sum(own) == 0),
        ]
        await self._check_book(scenario)

    async def _follow_while_created(self, scenario: Scenario) -> Json:
        """Create a payment whose answer takes long, and follow it meanwhile. Returns it as it ended."""
        reference = _new_reference()
        creating = asyncio.create_task(self._create(scenario, SLOW_MSISDN, reference))
        try:

            async def saved() -> Json | None:
                page = await self._client.get("/v1/payments", merchantReference=reference)
                found: list[Json] = page.get("payments", [])
                return found[0] if found and found[0].get("attempts") else None

            payment = await until("the payment is saved before the provider is called", saved)
            self._step(scenario, "payments", f"{payment['paymentId']} is saved, its attempt {_states(payment)[1]}")
            followed = await self._follow(scenario, payment)
            await creating
        finally:
            creating.cancel()
        return followed

    async def _create(self, scenario: Scenario, msisdn: str, reference: str) -> Answer:
        body = {
            "amount": _money(AMOUNT),
            "method": {"mobileMoney": {"msisdn": msisdn}},
            "payer": {"displayName": "Ama Mensah", "email": PAYER_EMAIL},
            "description": f"Order {reference}",
            "merchantReference": reference,
        }
        answer = await self._client.post("/v1/payments", body)
        payment = answer.body["payment"]
        route = payment.get("route", {})
        self._step(scenario, "gateway", _rest(answer, "POST", f"/v1/payments: {payment['paymentId']}"))
        told = f"{_states(payment)[0]} by {route.get('provider')}: {route.get('explanation')}"
        self._step(scenario, "payments", told)
        scenario.facts["restAnswer"] = {"status": answer.status, "seconds": round(answer.seconds, 4)}
        scenario.facts["traceId"] = answer.trace_id
        return answer

    async def _follow(self, scenario: Scenario, created: Json) -> Json:
        """Follow a payment by the watch until it can change no more by itself."""
        self._view.waiting("the payer and the provider decide")
        seen = _states(created)
        # Closed here: its limit in time must not outlive it.
        async with aclosing(self._client.watch(created["paymentId"])) as changes:
            async for payment in changes:
                if _states(payment) != seen:
                    seen = _states(payment)
                    reference = payment["attempts"][-1].get("providerReference", "") if payment.get("attempts") else ""
                    told = f"{seen[0]}, attempt {seen[1]}" + (f", reference {reference}" if reference else "")
                    self._step(scenario, "watch", told)
                if payment["state"] in _SETTLED:
                    return payment
        raise DemoError(f"the watch ended while the payment was {seen[0]}")

    async def _wait_for_ledger(self, scenario: Scenario, payment: Json) -> Json:
        self._view.waiting("the ledger has it")
        path = f"/v1/payments/{payment['paymentId']}"

        async def posted() -> Json | None:
            found: Json = (await self._client.get(path))["payment"]
            return found if found.get("ledgerState") == "LEDGER_STATE_POSTED" else None

        payment = await until("the payment is booked", posted)
        self._step(scenario, "ledger", f"posted as {payment['ledgerTransactionId']}")
        return payment

    async def _entries(self, scenario: Scenario, source_id: str) -> list[Json]:
        entries = await self._client.pages("/v1/ledger/entries", "entries", sourceId=source_id)
        self._step(scenario, "ledger", f"{len(entries)} entries, sum {_sum(entries)}")
        return entries

    async def _wait_for_callback(self, scenario: Scenario, payment_id: str) -> list[Json]:
        async def received() -> list[Json] | None:
            return await self._client.callbacks(payment_id) or None

        callbacks = await until("the provider calls back", received)
        for callback in callbacks:
            told = f"callback of {callback['provider']} about a {callback['operation']}: {callback['state']}"
            self._step(scenario, "gateway", told)
        return callbacks

    async def _receipts(self, payment: Json) -> list[Json]:
        mails = await self._client.mailbox(PAYER_EMAIL)
        signs = {payment["paymentId"], payment["merchantReference"]}
        return [mail for mail in mails if any(sign in str(mail) for sign in signs)]

    async def _wait_for_receipt(self, scenario: Scenario, payment: Json) -> list[Json]:
        self._view.waiting("the payer gets a receipt")

        async def delivered() -> list[Json] | None:
            return await self._receipts(payment) or None

        receipts = await until("the receipt arrives", delivered)
        self._step(scenario, "smtp", f"receipt to {PAYER_EMAIL}: {receipts[0].get('subject', '')}")
        return receipts

    async def _wait_for_events(self, scenario: Scenario, payment_id: str) -> list[Json]:
        async def published() -> list[Json] | None:
            events = await self._client.events(payment_id)
            return events if _count(events, "payments.payment.succeeded") else None

        events = await until("the events are published", published)
        for event in events:
            self._step(scenario, "nats", f"{event['type']} {event['id']}")
        return events

    async def _check_book(self, scenario: Scenario) -> None:
        """All balances of the tenant's book together, by their sides, are nothing."""
        accounts = await self._client.pages("/v1/ledger/accounts", "accounts")
        balances = {account["accountName"]: account["balance"] for account in accounts}
        total = sum(_signed(account) for account in accounts)
        scenario.facts["balances"] = balances
        scenario.checks.append(Check("all balances of the book sum to zero", bool(accounts) and total == 0))

    async def _prove(self, scenario: Scenario, transaction_id: str) -> None:
        """Fetch the proof that a posting is in the books, and have it checked offline; a changed one must not hold."""
        proof = (await self._client.get(f"/v1/ledger/proofs/inclusion/{transaction_id}"))["proof"]
        keys = [key["verifierKey"] for key in await self._client.pages("/v1/ledger/proofs/keys", "keys")]
        files = ProofFiles.write(self._client.plan.state.proofs, transaction_id, proof, keys)
        facts = facts_of(transaction_id, proof, files)
        self._step(scenario, "ledger", f"proof of leaf {facts['leafIndex']} of {facts['treeSize']} in {files.proof}")
        right, changed = await verify(files), await verify(files.changed())
        self._step(scenario, "verify", f"offline: {right}")
        self._step(scenario, "verify", f"with one bit of the record flipped: {changed}")
        scenario.facts["proof"] = facts | verdicts_of(right, changed)
        is_ours = right.is_about(transaction_id, self._client.tenant_id)
        scenario.checks += [
            Check("the proof that the posting is in the books holds offline", right.holds and is_ours),
            Check("with one bit of the record flipped it is found wrong", changed.is_wrong),
        ]

    async def _find_time(self, scenario: Scenario, answer: Answer, events: list[Json]) -> None:
        """Where the time went: in the request's trace, and in those that the events belong to."""
        carried = {event.get("traceparent", "").split("-")[1] for event in events if event.get("traceparent")}
        trace_ids = sorted({answer.trace_id, *carried} - {""})
        folder = self._client.plan.state.traces
        wanted = {"gateway", "payments", "ledger", "notifications"}

        async def written() -> list[Span] | None:
            spans = read_spans(folder, trace_ids)
            return spans if wanted <= {span.process for span in spans} and is_complete(spans) else None

        self._view.waiting("the processes write their spans")
        spans = await until("the spans are written", written)
        scenario.facts["traceIds"] = trace_ids
        scenario.facts["hops"] = [hop.to_json() for hop in hops_of(spans)]
        scenario.facts["ownMillisecondsByProcess"] = {
            process: round(seconds * 1000, 2) for process, seconds in by_process(spans).items()
        }
        scenario.checks.append(Check("the trace reaches every service", wanted <= {span.process for span in spans}))


def _new_reference() -> str:
    return f"demo-{uuid.uuid4().hex[:12]}"


def _word(name: str) -> str:
    """A value of an enum as people say it."""
    return name.removeprefix("STATE_").removeprefix("CODE_")


def _states(payment: Json) -> tuple[str, str]:
    """Of the payment and of its newest attempt."""
    attempts = payment.get("attempts", [])
    return _word(payment["state"]), _word(attempts[-1]["state"]) if attempts else ""


def _rest(answer: Answer, verb: str, what: str) -> str:
    return f"{answer.status} after {answer.seconds * 1000:.0f} ms to {verb} {what}"


def _money(amount: Money) -> Json:
    return {"amountMinor": str(amount.amount_minor), "currency": amount.currency}


def _minor(amount: Json | None) -> int:
    # Proto JSON writes 64-bit numbers as text, and leaves zero out.
    return int((amount or {}).get("amountMinor", 0))


def _signed(account: Json) -> int:
    return _minor(account.get("balance")) * (1 if account["type"] in _DEBIT_TYPES else -1)


def _sum(entries: list[Json]) -> int:
    return sum(_minor(entry["amount"]) * (1 if entry["side"] == "SIDE_DEBIT" else -1) for entry in entries)


def _one_transaction(entries: list[Json]) -> bool:
    return len({entry["transactionId"] for entry in entries}) == 1


def _count(events: list[Json], kind: str) -> int:
    return sum(event["type"] == kind for event in events)


def _event_facts(event: Json) -> Json:
    return {"id": event["id"], "type": event["type"], "subject": event["subject"], "time": event["time"]}
