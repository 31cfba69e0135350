"""Random sets of components for property tests: Protocols, and classes that provide, need and want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from msgspec import Struct

from magmobo.contracts.component import Component, Needs, Wants

PROTOCOLS: Sequence[type] = [type(f"P{index}", (), {}) for index in range(8)]


class Plan(Struct, frozen=True):
    """Component `index`: it provides P<index> when `provides`; the others are indices of Protocols and components."""

    index: int
    provides: bool
    needs: frozenset[int]
    wants: frozenset[int]
    after: frozenset[int]

    @property
    def name(self) -> str:
        return f"c{self.index}"

    def hard_needs(self, present: Sequence[Plan]) -> set[str]:
        """Names of those among `present` that it cannot do without."""
        return {other.name for other in present if other.provides and other.index in self.needs}


def component_of(plan: Plan) -> type[Component]:
    def constructor(self: Component, **given: Any) -> None:
        self.given = given  # type: ignore[attr-defined]

    parameters = {f"need_{index}": Needs[PROTOCOLS[index]] for index in sorted(plan.needs)}  # type: ignore[misc]
    parameters |= {f"want_{index}": Wants[PROTOCOLS[index]] for index in sorted(plan.wants - plan.needs)}  # type: ignore[misc]
    names = ", ".join(parameters)
    scope: dict[str, Any] = {"constructor": constructor}
    call = ", ".join(f"{name}={name}" for name in parameters)
    exec(f"def __init__(self{', ' + names if names else ''}): constructor(self, {call})", scope)
    scope["__init__"].__annotations__ = parameters
    return type(
        f"C{plan.index}",
        (Component,),
        {
            "name": plan.name,
            "provides": (PROTOCOLS[plan.index],) if plan.provides else (),
            "after": tuple(f"c{index}" for index in sorted(plan.after)),
            "__init__": scope["__init__"],
        },
    )


def _plan(index: int, top: int) -> st.SearchStrategy[Plan]:
    others = st.frozensets(st.integers(0, top - 1), max_size=2)
    return st.builds(Plan, st.just(index), st.booleans(), others, others, others)


def plans(*, acyclic: bool = False) -> st.SearchStrategy[list[Plan]]:
    """Up to eight components in any order. `acyclic`: each refers to those with lower numbers, all of which provide."""
    count = len(PROTOCOLS)
    if not acyclic:
        return st.tuples(*(_plan(index, count) for index in range(count))).flatmap(
            lambda whole: st.lists(st.sampled_from(whole), unique_by=lambda plan: plan.index)
        )
    lower = [st.builds(Plan, st.just(index), st.just(True), *([_below(index)] * 3)) for index in range(count)]
    return st.tuples(*lower).flatmap(lambda whole: st.permutations(whole))


def _below(index: int) -> st.SearchStrategy[frozenset[int]]:
    return st.frozensets(st.integers(0, index - 1), max_size=2) if index else st.just(frozenset())
