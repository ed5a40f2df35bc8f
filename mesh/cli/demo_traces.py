"""Where the time of a payment went, from the spans that every process writes."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

# The end of a file is enough: it was written within the last minute.
_TAIL_BYTES = 4 * 1_048_576


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. Times in seconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    process: str
    name: str
    kind: str
    is_sql: bool
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Hop:
    """One thing that one process did.

    Attributes:
        at_seconds: Since the first span of all.
        total_seconds: From its begin to its end.
        own_seconds: Of these, not spent in hops below it nor in the database.
        statements: SQL statements directly in it.
        sql_seconds: Time of these.
    """

    trace_id: str
    depth: int
    at_seconds: float
    process: str
    name: str
    total_seconds: float
    own_seconds: float
    statements: int
    sql_seconds: float

    def to_json(self) -> dict[str, Any]:
        """For machines, times in milliseconds."""
        return {
            "traceId": self.trace_id,
            "depth": self.depth,
            "process": self.process,
            "name": self.name,
            "atMilliseconds": round(self.at_seconds * 1000, 2),
            "totalMilliseconds": round(self.total_seconds * 1000, 2),
            "ownMilliseconds": round(self.own_seconds * 1000, 2),
            "sqlStatements": self.statements,
            "sqlMilliseconds": round(self.sql_seconds * 1000, 2),
        }


def read_spans(folder: Path, trace_ids: Iterable[str]) -> list[Span]:
    """The spans of these traces that are written by now, by start."""
    wanted = set(trace_ids)
    found = [
        span
        for file in sorted(folder.glob("*.jsonl"))
        for line in _last_lines(file)
        # Most lines are of other traces: parsing them all would take longer than all the rest.
        if any(trace_id in line for trace_id in wanted) and (span := _parse(line)) is not None
    ]
    return sorted((span for span in found if span.trace_id in wanted), key=lambda span: span.start)


def is_complete(spans: list[Span]) -> bool:
    """Whether no span is missing above another: processes write theirs at different times."""
    known = {span.span_id for span in spans}
    return all(not span.parent_id or span.parent_id in known for span in spans)


def hops_of(spans: list[Span]) -> list[Hop]:
    """The spans without SQL, each trace from its top down, with the time that was their own."""
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        children[span.parent_id if span.parent_id in known else ""].append(span)
    first = min((span.start for span in spans), default=0.0)

    def walk(span: Span, depth: int) -> Iterator[Hop]:
        below = children[span.span_id]
        sql = [child for child in below if child.is_sql]
        hops = [child for child in below if not child.is_sql]
        yield Hop(
            trace_id=span.trace_id,
            depth=depth,
            at_seconds=span.start - first,
            process=span.process,
            name=span.name,
            total_seconds=span.end - span.start,
            own_seconds=max(0.0, span.end - span.start - _covered(span, below)),
            statements=len(sql),
            sql_seconds=sum(child.end - child.start for child in sql),
        )
        for child in hops:
            yield from walk(child, depth + 1)

    return [hop for top in children[""] if not top.is_sql for hop in walk(top, 0)]


def by_process(spans: list[Span]) -> dict[str, float]:
    """Own seconds of each process, the database as one of its own."""
    seconds: dict[str, float] = defaultdict(float)
    for hop in hops_of(spans):
        seconds[hop.process] += hop.own_seconds
        seconds["database"] += hop.sql_seconds
    return dict(sorted(seconds.items(), key=lambda entry: -entry[1]))


def _covered(span: Span, below: list[Span]) -> float:
    """Seconds of a span during which at least one of those below it ran. One that began later may outlive it."""
    covered, reached = 0.0, span.start
    for child in sorted(below, key=lambda each: each.start):
        start, end = max(child.start, reached), min(child.end, span.end)
        if end > start:
            covered += end - start
            reached = end
    return covered


def _last_lines(file: Path) -> list[str]:
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()
    return lines[1:] if size > _TAIL_BYTES else lines


def _parse(line: str) -> Span | None:
    try:
        document = json.loads(line)
        attributes = document["attributes"] or {}
        return Span(
            trace_id=document["context"]["trace_id"].removeprefix("0x"),
            span_id=document["context"]["span_id"].removeprefix("0x"),
            parent_id=(document["parent_id"] or "").removeprefix("0x"),
            process=document["resource"]["attributes"]["service.name"],
            name=document["name"],
            kind=document["kind"].removeprefix("SpanKind."),
            is_sql="db.system" in attributes or "db.system.name" in attributes,
            start=datetime.fromisoformat(document["start_time"]).timestamp(),
            end=datetime.fromisoformat(document["end_time"]).timestamp(),
        )
    except (ValueError, KeyError, TypeError):
        # The line that is being written right now.
        return None
