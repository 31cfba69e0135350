"""Who takes part in a start: what the user asked for, what that needs, and a line for whoever is missing."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kernel.graphs import Plan, component_of, plans

from magmobo.contracts.component import Component, Needs, Wants
from magmobo.kernel.errors import (
    AmbiguousProvider,
    DependencyCycle,
    MissingProvider,
    RegistryError,
    SelectionImpossible,
    UnknownComponent,
)
from magmobo.kernel.selection import Cause, Selection, select


class Database(Protocol): ...


class Realtime(Protocol): ...


class Clock(Protocol): ...


class Base(Component):
    name = "base"
    provides = (Database,)


class Live(Component):
    name = "live"
    provides = (Realtime,)

    def __init__(self, database: Needs[Database]) -> None: ...


class Page(Component):
    name = "page"

    def __init__(self, realtime: Needs[Realtime], clock: Wants[Clock]) -> None: ...


class Ticker(Component):
    name = "ticker"
    provides = (Clock,)


NODE: list[type[Component]] = [Base, Live, Page, Ticker]


def causes(selection: Selection) -> dict[str, str]:
    return {name: str(one.cause) for name, one in selection.left_out.items()}


def test_everything_takes_part_unless_somebody_says_otherwise() -> None:
    selection = select(NODE)
    assert selection.kept == ("base", "live", "page", "ticker")
    assert not selection.left_out
    assert not selection.notices()


def test_without_one_goes_what_cannot_do_without_it() -> None:
    selection = select(NODE, without=["base"])
    assert selection.kept == ("ticker",)
    assert causes(selection) == {"base": "without", "live": "needs", "page": "needs"}
    assert selection.notices() == ["live and page do not start: they need base (left out)"]
    assert set(selection.registry.idle) == {"base", "live", "page"}


def test_without_one_that_is_only_wanted_nobody_else_goes() -> None:
    selection = select(NODE, without=["ticker"])
    assert selection.kept == ("base", "live", "page")
    assert selection.notices() == []


def test_what_is_served_from_outside_is_nobody_elses_loss() -> None:
    assert select([Base, Live, Page], [Database], without=["base"]).kept == ("live", "page")


def test_a_disabled_component_is_said_with_the_way_back() -> None:
    selection = select(NODE, disabled=["live", "long_gone"])
    assert causes(selection) == {"live": "disabled", "page": "needs"}
    assert selection.notices() == [
        "page does not start: it needs live (disabled)",
        "live is disabled: `mag component:enable live` lets it start again",
    ]


def test_only_brings_what_it_needs_and_nothing_that_it_merely_wants() -> None:
    selection = select(NODE, only=["page"])
    assert selection.kept == ("base", "live", "page")
    assert causes(selection) == {"ticker": "only"}
    assert selection.notices() == []


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"only": ["page"], "without": ["base"]}, "it needs base, which is left out"),
        ({"only": ["page"], "disabled": ["live"]}, "it needs live, which is disabled"),
        ({"only": ["page"], "disabled": ["page"]}, "it is disabled"),
    ],
)
def test_asking_for_what_cannot_be_is_refused(asked: dict[str, Any], reason: str) -> None:
    with pytest.raises(SelectionImpossible, match=f'"page" cannot start: {reason}'):
        select(NODE, **asked)


@pytest.mark.parametrize("field", ["only", "without"])
def test_an_unknown_name_is_refused_with_the_nearest(field: str) -> None:
    with pytest.raises(UnknownComponent, match=r'"bsae"; did you mean "base"'):
        select(NODE, **{field: ["bsae"]})  # type: ignore[arg-type]


def test_what_is_installed_and_broken_can_be_left_out_and_not_asked_for() -> None:
    assert select(NODE, without=["broken"], missing=["broken"]).kept == ("base", "live", "page", "ticker")
    with pytest.raises(UnknownComponent):
        select(NODE, only=["broken"], missing=["broken"])


def test_a_safe_start_minds_no_slip() -> None:
    assert select(NODE, only=["bsae"], without=["lvie"], safe=True).kept == ()


def test_safe_leaves_everything_out_even_what_was_asked_for() -> None:
    selection = select(NODE, only=["page"], safe=True)
    assert selection.kept == ()
    assert set(causes(selection).values()) == {"safe"}


# ---------------------------------------------------------------- components nobody named


class Rival(Component):
    name = "rival"
    provides = (Database,)


class Lonely(Component):
    name = "lonely"

    def __init__(self, thing: Needs[Wants]) -> None: ...  # type: ignore[type-arg]


Lonely.__init__.__annotations__["thing"] = Needs[type("Thing", (), {})]  # type: ignore[misc]


class Circular(Component):
    name = "circular"
    provides = (Clock,)
    after = ("page",)


def test_one_that_nobody_named_and_that_does_not_fit_is_left_out_and_said() -> None:
    selection = select([Base, Live, Page, Rival, Lonely, Circular], optional=["rival", "lonely", "circular"])
    assert selection.kept == ("base", "live", "page")
    assert causes(selection) == {"rival": "unfit", "lonely": "unfit", "circular": "unfit"}
    notices = "\n".join(selection.notices())
    assert 'rival does not start: Database is provided by both "base" and "rival" [MAG-REG-004]' in notices
    assert 'lonely does not start: component "lonely" needs Thing' in notices
    assert "circular does not start: components need each other in a circle" in notices


def test_an_optional_provider_may_stand_in_for_one_that_is_left_out() -> None:
    selection = select([Base, Live, Rival], optional=["rival"], without=["base"])
    assert selection.kept == ("live", "rival")
    assert selection.registry.needs("live") == ("rival",)


@pytest.mark.parametrize(
    ("odd", "refusal"), [(Rival, AmbiguousProvider), (Lonely, MissingProvider), (Circular, DependencyCycle)]
)
def test_one_that_was_named_must_fit(odd: type[Component], refusal: type[RegistryError]) -> None:
    with pytest.raises(refusal):
        select([Base, Live, Page, odd])
    if odd is Lonely:
        with pytest.raises(refusal):
            select([Base, Live, Page, odd], optional=[odd.name], only=[odd.name])


# ---------------------------------------------------------------- any graph


@settings(deadline=None)
@given(plans(acyclic=True), st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_a_selection_is_closed_and_as_large_as_it_can_be(
    given_plans: list[Plan], only: set[int], without: set[int], disabled: set[int]
) -> None:
    def names(indices: set[int]) -> set[str]:
        return {f"c{index}" for index in indices}

    needs = {plan.name: plan.hard_needs(given_plans) for plan in given_plans}
    out = names(without) | names(disabled)
    possible = set(needs)
    while lost := {name for name in possible if name in out or not needs[name] <= possible}:
        possible -= lost
    wanted = _closure(names(only), needs) if only else set(needs)
    types = [component_of(plan) for plan in given_plans]
    if not names(only) <= possible:
        with pytest.raises(SelectionImpossible) as refused:
            select(types, only=names(only), without=names(without), disabled=names(disabled))
        assert refused.value.name in names(only) - possible
        return
    selection = select(types, only=names(only), without=names(without), disabled=names(disabled))
    assert set(selection.kept) == wanted & possible
    assert set(selection.left_out) == set(needs) - set(selection.kept)
    assert all(one.because_of in out for one in selection.left_out.values() if one.cause is Cause.NEEDS)


@settings(deadline=None)
@given(plans())
def test_with_everything_optional_some_start_always_works(given_plans: list[Plan]) -> None:
    types = [component_of(plan) for plan in given_plans]
    selection = select(types, optional=[plan.name for plan in given_plans])
    assert set(selection.kept) | set(selection.left_out) == {plan.name for plan in given_plans}
    assert len(selection.notices()) >= len({one.because_of or name for name, one in selection.left_out.items()})


def _closure(names: set[str], needs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += needs[name]
    return found
