"""Components that do not fit together are refused with names; those that do come up in an order that works."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kernel.graphs import Plan, component_of, plans

from magmobo.contracts.component import Component, Context, Needs, Wants
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.errors import (
    AmbiguousProvider,
    BadDeclaration,
    DependencyCycle,
    DuplicateComponent,
    MissingProvider,
    RegistryError,
    StillNeeded,
    UnknownComponent,
)
from magmobo.kernel.registry import RESERVED, Registry, declare


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

    class Namesake(Component):
        name = "storage"

    with pytest.raises(DuplicateComponent, match=r'"storage": .*:Storage and .*:test_names.*\.Namesake'):
        Registry([Storage, Namesake])
    with pytest.raises(DuplicateComponent, match=r"there already: .*:Storage"):
        Registry([Storage], idle=[Storage])
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


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({}, "its `name` is not a lower-case word"),
        ({"name": "Loud Name"}, "its `name` is not a lower-case word"),
        ({"name": "security"}, "belongs to the node itself"),
        ({"name": "one", "after": "storage"}, "its `after` is not a tuple of names"),
        ({"name": "one", "provides": Store}, "its `provides` is not a tuple of classes"),
        ({"name": "one", "capabilities": ["magds.backup"]}, "its `capabilities` is not a tuple of names"),
        ({"name": "one", "config_type": dict}, "its `config_type` is not a msgspec Struct"),
        ({"name": "one", "start": lambda self: None}, "its hook `start` is not `async def`"),
    ],
)
def test_a_manifest_the_kernel_cannot_read_is_refused(members: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadDeclaration, match=complaint):
        declare(type("Odd", (Component,), members))


def test_every_section_of_the_node_is_a_reserved_name() -> None:
    assert CORE_SECTIONS.keys() <= RESERVED


def test_constructors_the_kernel_cannot_fill_are_refused() -> None:
    class Greedy(Component):
        name = "greedy"

        def __init__(self, *everything: Any) -> None: ...

    class Plain(Component):
        name = "plain"

        def __init__(self, context: Context, port: int) -> None: ...

    class Unresolved(Component):
        name = "unresolved"

        def __init__(self, context: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037

    class Vague(Component):
        name = "vague"

        def __init__(self, thing: Needs[int | str]) -> None: ...

    for component_type in (Greedy, Plain, Unresolved, Vague):
        with pytest.raises(BadDeclaration):
            declare(component_type)


def test_questions_about_neighbours() -> None:
    registry = Registry([Reader, Feeder, Storage])
    assert registry.needs("reader") == ("storage",)
    assert registry.wants("reader") == ("feeder",)
    assert registry.needed_by("storage") == ("reader", "feeder"), "in the order in which they could leave"
    assert registry.needed_by("feeder") == (), "a soft need holds nobody"
    with pytest.raises(UnknownComponent):
        registry.needs("nobody")


def test_whoever_is_needed_cannot_leave_nor_what_that_needs() -> None:
    class Last(Component):
        name = "last"

        def __init__(self, feed: Needs[Feed]) -> None: ...

    with pytest.raises(StillNeeded, match='"storage" is needed by last, feeder'):
        Registry([Storage, Feeder, Last]).with_removed("storage")

    registry = Registry([Reader, Feeder, Storage])
    for leave in (registry.with_removed, registry.with_disabled):
        with pytest.raises(StillNeeded, match='"storage" is needed by reader, feeder'):
            leave("storage")
        assert set(leave("feeder").declarations) == {"reader", "storage"}
    assert set(registry.declarations) == {"reader", "feeder", "storage"}


def test_an_idle_component_is_known_and_takes_no_part() -> None:
    registry = Registry([Storage, Reader, Feeder]).with_disabled("feeder")
    assert registry.levels == (("storage",), ("reader",))
    assert set(registry.idle) == {"feeder"}
    with pytest.raises(DuplicateComponent):
        registry.with_added(Feeder)
    assert registry.with_enabled("feeder").levels == (("storage",), ("feeder",), ("reader",))
    assert not registry.with_removed("feeder").idle
    with pytest.raises(UnknownComponent):
        registry.with_enabled("storage")


def test_a_missing_provider_names_who_is_idle() -> None:
    with pytest.raises(MissingProvider, match=r'"feeder" needs Store.*"storage" would, but it is disabled') as caught:
        Registry([Feeder], idle=[Storage])
    assert "mag component:enable storage" in caught.value.next_step()


def test_the_graph_is_data_and_dot() -> None:
    class Odd(Component):
        name = "odd"
        after = ("storage", "absent")
        provides = (type('Quo"te\\\n', (), {}),)

    class Fond(Component):
        name = "fond"

        def __init__(self, odd: Any) -> None: ...

    Fond.__init__.__annotations__["odd"] = Wants[Odd.provides[0]]

    graph = Registry([Reader, Feeder, Storage, Odd, Fond]).graph()
    assert [list(level) for level in graph.levels] == [["storage"], ["feeder", "odd"], ["reader", "fond"]]
    assert {(edge.consumer, edge.provider, edge.kind, edge.protocol) for edge in graph.edges} == {
        ("feeder", "storage", "needs", "Store"),
        ("reader", "storage", "needs", "Store"),
        ("reader", "feeder", "wants", "Feed"),
        ("odd", "storage", "after", ""),
        ("fond", "odd", "wants", 'Quo"te\\\n'),
    }
    lines = graph.dot.splitlines()
    assert (lines[0], lines[-1]) == ("digraph components {", "}")
    assert '  "feeder" -> "storage" [style=solid, label="Store"];' in lines
    assert '  "odd" -> "storage" [style=dotted];' in lines
    assert '  "fond" -> "odd" [style=dashed, label="Quo\\"te\\\\ "];' in lines


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


@settings(deadline=None)
@given(plans())
def test_whatever_is_given_is_a_graph_that_holds_or_a_refusal_that_names_members(given_plans: list[Plan]) -> None:
    names = {plan.name for plan in given_plans}
    refused: RegistryError | None = None
    try:
        registry = Registry([component_of(plan) for plan in given_plans])
    except RegistryError as error:
        refused = error
    if refused is not None:
        assert refused.involved
        assert set(refused.involved) <= names
        return
    seen: set[str] = set()
    for level in registry.levels:
        assert all(set(registry.edges[name]) <= seen for name in level)
        seen |= set(level)
    assert seen == names
    for plan in given_plans:
        assert set(registry.needs(plan.name)) == plan.hard_needs(given_plans)
        assert all(plan.name in registry.needed_by(provider) for provider in registry.needs(plan.name))


@settings(deadline=None)
@given(st.data())
def test_a_changed_registry_is_as_one_made_anew(data: st.DataObject) -> None:
    given_plans = data.draw(plans(acyclic=True))
    types = {plan.name: component_of(plan) for plan in given_plans}
    registry = Registry([])
    for _ in range(data.draw(st.integers(0, 24))):
        name = data.draw(st.sampled_from(sorted(types)))
        before = (dict(registry.declarations), dict(registry.idle), registry.levels)
        if name in registry.declarations:
            act = data.draw(st.sampled_from([registry.with_removed, registry.with_disabled]))
        elif name in registry.idle:
            act = data.draw(st.sampled_from([registry.with_removed, registry.with_enabled]))
        else:
            act = registry.with_added
        changed = registry
        with suppress(StillNeeded, MissingProvider):
            changed = act(types[name] if act == registry.with_added else name)  # type: ignore[arg-type]
        assert (registry.declarations, registry.idle, registry.levels) == before, "a registry does not change"
        registry = changed
    anew = Registry([types[name] for name in registry.declarations], idle=[types[name] for name in registry.idle])
    assert [sorted(level) for level in anew.levels] == [sorted(level) for level in registry.levels]
    assert {name: set(edges) for name, edges in anew.edges.items()} == {
        name: set(edges) for name, edges in registry.edges.items()
    }
    for name in registry.declarations:
        direct = {other for other in registry.declarations if name in registry.needs(other)}
        further = {one for consumer in direct for one in registry.needed_by(consumer, transitive=True)}
        assert set(anew.needed_by(name)) == set(registry.needed_by(name)) == direct
        assert set(registry.needed_by(name, transitive=True)) == direct | further
