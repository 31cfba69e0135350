"""Components that do not fit together are refused with names; those that do come up in an order that works."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magmobo.contracts.component import Component, Context, Needs, Wants
from magmobo.kernel.errors import (
    AmbiguousProvider,
    BadDeclaration,
    DependencyCycle,
    DuplicateComponent,
    MissingProvider,
)
from magmobo.kernel.registry import Registry, declare


class Store(Protocol):
    def get(self) -> int: ...


class Feed(Protocol):
    def next(self) -> int: ...


class Storage(Component):
    name = "storage"
    provides = (Store,)


class Feeder(Component):
    name = "feeder"
    provides = (Feed,)

    def __init__(self, context: Context, store: Needs[Store]) -> None: ...


class Reader(Component):
    name = "reader"

    def __init__(self, context: Context, feed: Wants[Feed], store: Needs[Store]) -> None: ...


def test_annotations_become_dependencies() -> None:
    declaration = declare(Reader)
    assert declaration.context_parameter == "context"
    assert [(d.parameter, d.protocol, d.hard) for d in declaration.dependencies] == [
        ("feed", Feed, False),
        ("store", Store, True),
    ]
    assert declare(Storage).dependencies == ()


def test_levels_follow_hard_and_soft_dependencies() -> None:
    assert Registry([Reader, Feeder, Storage]).levels == (("storage",), ("feeder",), ("reader",))
    assert Registry([Reader, Storage]).levels == (("storage",), ("reader",))
    assert Registry([Reader, Storage]).provider_of(Feed) is None


def test_after_orders_without_needing() -> None:
    class Late(Component):
        name = "late"
        after = ("storage", "absent")

    assert Registry([Late, Storage]).levels == (("storage",), ("late",))


def test_a_missing_provider_is_named() -> None:
    with pytest.raises(MissingProvider, match=r'"feeder" needs Store'):
        Registry([Feeder])
    assert Registry([Feeder], provided=[Store]).levels == (("feeder",),)


def test_names_and_protocols_are_unique() -> None:
    class Other(Component):
        name = "other"
        provides = (Store,)

    with pytest.raises(DuplicateComponent, match="storage"):
        Registry([Storage, Storage])
    with pytest.raises(AmbiguousProvider, match='Store is provided by both "storage" and "other"'):
        Registry([Storage, Other])
    with pytest.raises(AmbiguousProvider, match="the node itself"):
        Registry([Storage], provided=[Store])


def test_a_cycle_is_shown_whole() -> None:
    class First(Component):
        name = "first"
        provides = (Store,)

        def __init__(self, feed: Needs[Feed]) -> None: ...

    class Second(Component):
        name = "second"
        provides = (Feed,)
        after = ("third",)

    class Third(Component):
        name = "third"

        def __init__(self, store: Needs[Store]) -> None: ...

    with pytest.raises(DependencyCycle) as caught:
        Registry([First, Second, Third, Feeder][:3])
    path = caught.value.path
    assert path[0] == path[-1]
    assert set(path) == {"first", "second", "third"}
    needs = {("first", "second"), ("second", "third"), ("third", "first")}
    assert set(pairwise(path)) == needs
    assert "first -> second" in str(caught.value) or "second -> third" in str(caught.value)


def test_constructors_the_kernel_cannot_fill_are_refused() -> None:
    class Unnamed(Component):
        pass

    class Shouting(Component):
        name = "Loud Name"

    class Greedy(Component):
        name = "greedy"

        def __init__(self, *everything: Any) -> None: ...

    class Plain(Component):
        name = "plain"

        def __init__(self, context: Context, port: int) -> None: ...

    for component_type in (Unnamed, Shouting, Greedy, Plain):
        with pytest.raises(BadDeclaration):
            declare(component_type)


@settings(deadline=None)  # a busy machine is not a failure
@given(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=8))
def test_any_graph_is_either_levelled_or_refused_with_a_true_cycle(edges: list[set[int]]) -> None:
    def make(index: int) -> type[Component]:
        after = tuple(f"c{other}" for other in sorted(edges[index]))
        return type(f"C{index}", (Component,), {"name": f"c{index}", "after": after})

    needs = {f"c{i}": {f"c{j}" for j in edges[i] if j < len(edges)} for i in range(len(edges))}
    levels: tuple[tuple[str, ...], ...] = ()
    cycle: tuple[str, ...] = ()
    try:
        levels = Registry([make(index) for index in range(len(edges))]).levels
    except DependencyCycle as error:
        cycle = error.path
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(later in needs[earlier] for earlier, later in pairwise(cycle))
        return
    seen: set[str] = set()
    for level in levels:
        assert all(needs[name] <= seen for name in level)
        seen |= set(level)
    assert seen == needs.keys()
