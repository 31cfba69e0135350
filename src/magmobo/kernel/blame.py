"""What decided the length of a boot: the report behind `kernel:blame`, computed from its spans. No I/O.

A stage begins when the one before it has ended, so every stage lies on the critical path. Inside a stage the path is
walked backwards from the component that ended last: what ended last before it began is what it waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from magmobo.contracts.operations import BlameEntry, BootReport
from magmobo.kernel.timeline import Span, Timeline

SAME_TIME_S = 0.001
"""Ends closer together than this count as one, and then a real dependency explains the wait better than a neighbour."""


def boot_report(
    timeline: Timeline, *, started_at_s: float, providers: Mapping[str, Sequence[str]], interrupted: bool = False
) -> BootReport:
    """The timeline of a boot, each stage before its components, those in the order in which they began.

    Args:
        started_at_s: wall time at which the boot began.
        providers: component -> names of those it comes up after.
        interrupted: whether the boot before this one died on its way.
    """
    stages = [span for span in timeline.spans if not span.component]
    parts = [span for span in timeline.spans if span.component]
    began_s = min((span.began_s for span in timeline.spans), default=0.0)
    ended_s = max((span.ended_s for span in timeline.spans), default=0.0)
    entries: list[BlameEntry] = []
    for stage in sorted(stages, key=lambda span: span.began_s):
        inside = sorted((span for span in parts if span.stage == stage.stage), key=lambda span: span.began_s)
        path = critical_path(inside, providers)
        entries.append(_entry(stage, began_s, critical=True))
        entries += [_entry(span, began_s, critical=span in path) for span in inside]
    return BootReport(
        boot_s=ended_s - began_s,
        started_at=datetime.fromtimestamp(started_at_s, UTC).isoformat(timespec="milliseconds"),
        interrupted=interrupted,
        entries=entries,
    )


def critical_path(spans: Iterable[Span], providers: Mapping[str, Sequence[str]]) -> Sequence[Span]:
    """The chain of spans that decided when the last of them ended, first one first; empty without spans."""
    left = sorted(spans, key=lambda span: span.ended_s)
    path: list[Span] = []
    index = len(left) - 1
    while index >= 0:
        path.append(left[index])
        # What ended later than the one chosen cannot have been waited for by it, so the list only shrinks.
        left = [span for span in left[:index] if span.ended_s <= path[-1].began_s]
        index = _waited_for(path[-1], left, providers)
    return path[::-1]


def _waited_for(span: Span, ended: Sequence[Span], providers: Mapping[str, Sequence[str]]) -> int:
    """Of `ended`, sorted by their ends, the index of the one that `span` waited for; -1 when there is none."""
    needed = {span.component, *providers.get(span.component, ())}
    for index in range(len(ended) - 1, -1, -1):
        if ended[-1].ended_s - ended[index].ended_s > SAME_TIME_S:
            break
        if ended[index].component in needed:
            return index
    return len(ended) - 1


def _entry(span: Span, began_s: float, *, critical: bool) -> BlameEntry:
    return BlameEntry(
        stage=span.stage,
        component=span.component,
        phase=span.phase,
        at_s=span.began_s - began_s,
        duration_s=span.ended_s - span.began_s,
        critical=critical,
    )
