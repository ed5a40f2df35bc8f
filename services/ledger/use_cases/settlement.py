"""What a batch decides about each posting of its calls. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from google.rpc import status_pb2

from mesh.errors import Problem, Reason
from mesh.interceptors.audit import AuditRow
from services.ledger.model.evaluation import Booked, Evaluation
from services.ledger.model.postings import Posting
from services.ledger.repository.batches import Outcome
from services.ledger.use_cases.work import Result, Wording, Work

# Others on the event loop get a turn after so many postings.
_TURN = 256


@dataclass(slots=True)
class Settled:
    """What this batch decides about one posting. The answer is there once the batch is written."""

    work: Work
    posting: Posting
    booked: Booked | None = None
    problem: Problem | None = None
    answer: bytes = b""

    @property
    def result(self) -> Result:
        return self.problem or self.answer


class Settlement:
    """Decides about the postings of one batch, call by call.

    Args:
        outcomes: how postings ended in earlier batches, by transaction id.
        request_hashes: what request ids were used for before.

    Attributes:
        request_hashes: of the request ids that were not used before.
        settled: what is decided now and not known from before, in its order.
        audit_rows: one for each call.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        wording: Wording,
        *,
        outcomes: Mapping[str, Outcome],
        request_hashes: Mapping[str, bytes],
    ) -> None:
        self._evaluation = evaluation
        self._wording = wording
        self._outcomes = outcomes
        self._known_hashes = request_hashes
        self._by_id: dict[str, Settled] = {}
        self.request_hashes: dict[str, bytes] = {}
        self.settled: list[Settled] = []
        self.audit_rows: list[AuditRow] = []

    async def settle(self, work: Work) -> list[Settled | Result] | Problem:
        """Decides about each posting of one call; gives the problem with the call as a whole where there is one."""
        request = work.request
        before = self._known_hashes.get(request.key) or self.request_hashes.get(request.key)
        if before is not None and before != request.request_hash:
            problem = request.reused()
            self.audit_rows.append(_audit_row(work, problem))
            return problem
        if before is None:
            self.request_hashes[request.key] = request.request_hash
        results: list[Settled | Result] = []
        for number, group in enumerate(_groups(work.postings)):
            results += self._settle_group(work, group) if len(group) > 1 else [self._settle_one(work, group[0])]
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
        # A call for many transfers ends well, however each of them does.
        self.audit_rows.append(_audit_row(work, None if work.together else results[0]))
        return results

    def _settle_one(self, work: Work, posting: Posting) -> Settled | Result:
        earlier = self._earlier(posting)
        if earlier is not None:
            return earlier
        settled = Settled(work, posting)
        try:
            settled.booked = self._evaluation.post(posting)
        except Problem as problem:
            settled.problem = problem
        self._by_id[posting.transaction_id] = settled
        self.settled.append(settled)
        return settled

    def _settle_group(self, work: Work, group: Sequence[Posting]) -> list[Settled | Result]:
        """Postings that are booked together or not at all."""
        earlier = [self._earlier(posting) for posting in group]
        if None not in earlier:
            return [one for one in earlier if one is not None]
        mark, count = self._evaluation.mark(), len(self.settled)
        results: list[Settled | Result] = []
        culprit: Posting | None = next((posting for posting, one in zip(group, earlier, strict=True) if one), None)
        for posting, one in zip(group, earlier, strict=True):
            result = one or self._settle_one(work, posting)
            results.append(result)
            problem = result.problem if isinstance(result, Settled) else result
            if isinstance(problem, Problem) and culprit is None:
                culprit = posting
        if culprit is None:
            return results
        self._evaluation.undo(mark)
        for settled in self.settled[count:]:
            if settled.posting is not culprit or settled.problem is None:
                settled.booked = None
                settled.problem = _failed_with(culprit)
        return results

    def _earlier(self, posting: Posting) -> Settled | Result | None:
        """How a posting with this id ended before: in this batch, or in an earlier one."""
        settled = self._by_id.get(posting.transaction_id)
        if settled is not None:
            is_same = settled.posting.request == posting.request
            return settled if is_same else self._id_taken(settled.posting.request, posting)
        outcome = self._outcomes.get(posting.transaction_id)
        if outcome is None:
            return None
        if outcome.request != posting.request:
            return self._id_taken(outcome.request, posting)
        if outcome.status is not None:
            return Problem.from_status(status_pb2.Status.FromString(outcome.status))
        return outcome.answer or b""

    def _id_taken(self, before: bytes, posting: Posting) -> Problem:
        names = self._wording.differing_fields(before, posting.request) if before else ["rpc"]
        return Problem(
            Reason.RESOURCE_ALREADY_EXISTS,
            f"transaction_id {posting.transaction_id} was used for something else",
            transaction_id=posting.transaction_id,
            differing_fields=",".join(names),
        )


def _groups(postings: Sequence[Posting]) -> Iterator[list[Posting]]:
    group: list[Posting] = []
    for posting in postings:
        group.append(posting)
        if not posting.linked:
            yield group
            group = []


def _failed_with(culprit: Posting) -> Problem:
    return Problem(
        Reason.LINKED_TRANSFER_FAILED,
        f"transfer {culprit.transaction_id} of the same group could not be booked",
        transaction_id=culprit.transaction_id,
    )


def _audit_row(work: Work, result: Settled | Result | None) -> AuditRow:
    """The row of one call, with what its caller is told."""
    problem = result.problem if isinstance(result, Settled) else result
    return replace(work.audit_row, outcome=problem.reason_name) if isinstance(problem, Problem) else work.audit_row
