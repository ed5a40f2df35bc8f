"""Some runs of the loop that breaks the ledger; `make chaos-ledger` does a hundred."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.system.chaos_ledger import BAD, FAULTS, run_once
from tests.system.ledger_world import LedgerWorld

SEED = 20_261_121


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LedgerWorld]:
    """A ledger in which everything can be broken."""
    started = LedgerWorld(tmp_path_factory.mktemp("chaos"))
    await started.start()
    yield started
    await started.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "among", [["kill_service_at_statement"], ["lose_answer_to_commit"], list(FAULTS)], ids=lambda among: among[0]
)
async def test_nothing_is_lost_or_doubled_when_the_ledger_breaks(world: LedgerWorld, among: list[str]) -> None:
    tally = await run_once(world, SEED, among)

    assert tally.faults == []
    assert {kind: tally.counts[kind] for kind in BAD} == dict.fromkeys(BAD, 0)
    assert tally.counts["acknowledged"] == tally.counts["postings"] > 0
