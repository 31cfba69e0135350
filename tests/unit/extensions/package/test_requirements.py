"""What extensions require of each other: every unmet requirement at once, and the order to start and stop in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.extensions.package.making import calm, manifest

from magmobo.extensions.package.errors import RequirementsUnmet, VersionInvalid
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.requirements import dependents, node_semver, resolve, start_order


def one(id_: str, version: str = "1.0.0", **requires: Any) -> Manifest:
    return manifest(id=id_, version=version, requires=requires)


def installed(*manifests: Manifest) -> dict[str, Manifest]:
    return {found.id: found for found in manifests}


def unmet(wanted: Manifest, *others: Manifest, node: str = "0.1.0") -> tuple[str, ...]:
    with pytest.raises(RequirementsUnmet) as caught:
        resolve(installed(*others), wanted, node_version=node)
    return tuple(caught.value.problems)


def test_the_order_puts_what_is_required_first() -> None:
    wanted = one("a", extensions={"b": "^1", "c": "*"})
    order = resolve(installed(one("b", "1.4.0", extensions={"c": "^1"}), one("c")), wanted, node_version="0.1.0")
    assert list(order) == ["c", "b", "a"]


def test_everything_in_the_way_is_said_at_once() -> None:
    wanted = one("a", magmobo=">=2", extensions={"b": "^2", "gone": "*"}, conflicts=["rival"])
    said = unmet(wanted, one("b", "1.9.0"), one("rival"), one("hater", conflicts=["a"]))
    assert said == (
        "it requires MagMoBo >=2, this is 0.1.0",
        "it requires b ^2, 1.9.0 is there",
        "it requires gone *, which is not enabled",
        "hater cannot be beside a, and hater is enabled",
        "it cannot be beside rival, and rival is enabled",
    )


def test_an_upgrade_may_not_break_who_requires_it() -> None:
    said = unmet(one("base", "2.0.0"), one("base", "1.0.0"), one("user", extensions={"base": "^1"}))
    assert said == ("user 1.0.0 requires base ^1",)
    assert resolve(
        installed(one("base"), one("user", extensions={"base": "^1"})), one("base", "1.1.0"), node_version="0.1.0"
    ) == ["base", "user"]


def test_a_circle_is_refused_and_named() -> None:
    said = unmet(one("a", extensions={"b": "*"}), one("b", extensions={"c": "*"}), one("c", extensions={"a": "*"}),
                 one("beside", extensions={"a": "*"}))  # fmt: skip
    assert said == ("it would wait for itself: a, b, c require each other",)


def test_who_requires_it_stops_first() -> None:
    here = installed(one("a"), one("b", extensions={"a": "*"}), one("c", extensions={"b": "*"}), one("d"))
    assert list(dependents(here, "a")) == ["c", "b"]
    assert list(dependents(here, "d")) == []


@pytest.mark.parametrize(
    ("said", "is_"),
    [
        ("0.1.0", "0.1.0"),
        ("0.2", "0.2.0"),
        ("1.0.0rc1", "1.0.0-rc.1"),
        ("1.0.0.dev4", "1.0.0-dev.4"),
        ("2.0.0-rc.1", "2.0.0-rc.1"),
    ],
)
def test_the_version_of_the_node_is_a_semantic_one(said: str, is_: str) -> None:
    assert node_semver(said) == is_
    with pytest.raises(VersionInvalid):
        node_semver(said + "!")


def test_a_node_that_is_a_prerelease_counts_as_what_it_says() -> None:
    assert resolve({}, one("a", magmobo=">=0.1"), node_version="0.2.0rc1") == ["a"]


@calm
@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef")), max_size=6))
def test_the_order_never_puts_one_before_what_it_requires_unless_they_require_each_other(
    graph: dict[str, set[str]],
) -> None:
    manifests = [one(name, extensions=dict.fromkeys(sorted(needs - {name}), "*")) for name, needs in graph.items()]
    order = start_order(manifests)
    assert sorted(order) == sorted(graph)
    for name in graph:
        for needed in graph[name] & graph.keys() - {name}:
            if order.index(needed) > order.index(name):
                assert _reaches(graph, needed, name) or _in_circle_below(graph, name)


def _reaches(graph: dict[str, set[str]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for needed in graph.get(waiting.pop(), set()) - seen:
            seen.add(needed)
            waiting.append(needed)
    return goal in seen


def _in_circle_below(graph: dict[str, set[str]], name: str) -> bool:
    """Whether it waits for some that require each other, so that no order could serve it."""
    stripped = {one: needs - {one} for one, needs in graph.items()}
    return any(_reaches(stripped, name, other) and _reaches(stripped, other, other) for other in stripped)
