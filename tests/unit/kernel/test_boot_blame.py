"""The report of a boot: what it says, and that its critical path is what made the boot as long as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from magmobo.kernel.blame import boot_report, critical_path
from magmobo.kernel.timeline import Span, Timeline


def span(component: str, began_s: float, ended_s: float, phase: str = "boot", stage: str = "component_load") -> Span:
    return Span(stage, component, phase, began_s, ended_s)


def names(path: Sequence[Span]) -> list[str]:
    return [one.component for one in path]


def test_levels_wait_for_their_slowest() -> None:
    spans = [span("fast", 0, 1), span("slow", 0, 5), span("needs_fast", 5, 7), span("other", 5, 6)]
    assert names(critical_path(spans, {"needs_fast": ["fast"]})) == ["slow", "needs_fast"]


def test_a_provider_explains_a_wait_better_than_a_neighbour_that_ended_with_it() -> None:
    spans = [span("provider", 0, 5.0), span("neighbour", 0, 5.0005), span("consumer", 5.001, 7)]
    assert names(critical_path(spans, {"consumer": ["provider"]})) == ["provider", "consumer"]
    assert names(critical_path(spans, {})) == ["neighbour", "consumer"]


def test_a_component_follows_itself_through_its_phases() -> None:
    spans = [span("a", 0, 0, "configure"), span("b", 0, 0, "configure"), span("a", 0, 3), span("b", 0, 1)]
    path = critical_path(spans, {})
    assert [(one.component, one.phase) for one in path] == [("a", "configure"), ("a", "boot")]


def test_nothing_has_no_path() -> None:
    assert critical_path([], {}) == []


@st.composite
def boots(draw: st.DrawFn) -> tuple[list[Span], Mapping[str, Sequence[str]], int]:
    """Components that begin once all they need has ended; the number is the end of the last one."""
    providers: dict[str, list[str]] = {}
    ends: dict[str, int] = {}
    spans = []
    for name in "abcdefgh"[: draw(st.integers(1, 8))]:
        providers[name] = draw(st.lists(st.sampled_from(sorted(ends)), unique=True, max_size=3)) if ends else []
        began = max((ends[provider] for provider in providers[name]), default=0)
        ends[name] = began + draw(st.integers(0, 50))
        spans.append(span(name, began, ends[name]))
    return spans, providers, max(ends.values())


@given(boots())
def test_the_path_leads_without_a_gap_from_the_begin_to_the_end(
    boot: tuple[list[Span], Mapping[str, Sequence[str]], int],
) -> None:
    spans, providers, ended = boot
    path = critical_path(spans, providers)
    assert path[0].began_s == 0
    assert path[-1].ended_s == ended
    assert all(one.ended_s == following.began_s for one, following in pairwise(path))
    assert len(set(names(path))) == len(path)


def test_the_report_lists_stages_with_their_components_and_counts_from_the_begin() -> None:
    times = iter([10.0, 11.0, 11.0, 11.0, 11.5, 12.0, 14.0, 15.0])
    timeline = Timeline(lambda: next(times))
    timeline.stage = "post"
    with timeline.span("", ""):
        pass
    timeline.stage = "component_load"
    with timeline.span("", ""), timeline.span("slow", "boot"), timeline.span("quick", "boot"):
        assert timeline.under_way == [("slow", "boot"), ("quick", "boot")]
    assert timeline.under_way == []
    report = boot_report(timeline, started_at_s=0.5, providers={}, interrupted=True)
    assert (report.boot_s, report.started_at, report.interrupted) == (5.0, "1970-01-01T00:00:00.500+00:00", True)
    assert [(one.stage, one.component, one.at_s, one.duration_s, one.critical) for one in report.entries] == [
        ("post", "", 0.0, 1.0, True),
        ("component_load", "", 1.0, 4.0, True),
        ("component_load", "slow", 1.0, 3.0, True),
        ("component_load", "quick", 1.5, 0.5, False),
    ]


def test_outside_of_a_boot_nothing_is_noted() -> None:
    timeline = Timeline(lambda: 1.0)
    with timeline.span("late", "start"):
        assert timeline.under_way == []
    assert timeline.spans == []
    assert boot_report(timeline, started_at_s=0, providers={}).entries == []
