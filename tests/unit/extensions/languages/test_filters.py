"""Filters: what they mean, what is refused, and that no event makes one raise or take long."""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.languages.errors import FilterRefused
from magmobo.extensions.languages.filters import compile_filter

EVENT = {
    "id": "1",
    "topic": "database.change",
    "time_s": 5.0,
    "data": {"table": "flights", "record": {"delay": 42, "late": True, "gate": None, "name": "Zürich"}, "n": 1.0},
}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"topic": "database.change"}, True),
        ({"topic": "database"}, False),
        ({"data.table": {"$eq": "flights"}, "data.record.delay": {"$gt": 41, "$lt": 43}}, True),
        ({"data.table": {"$eq": "flights"}, "data.record.delay": {"$gt": 42}}, False),
        ({"data.record.delay": {"$gte": 42, "$lte": 42}}, True),
        ({"data.record.delay": {"$lt": 42}}, False),
        ({"data.record.delay": 42.0}, True),
        ({"data.n": 1}, True),
        ({"data.record.late": 1}, False),
        ({"data.record.late": True}, True),
        ({"data.n": True}, False),
        ({"data.record.gate": None}, True),
        ({"data.record.absent": None}, False),
        ({"data.record.absent": {"$ne": 1}}, True),
        ({"data.record.absent": {"$gt": 1}}, False),
        ({"data.record.absent": {"$not": {"$gt": 1}}}, True),
        ({"data.table.deeper": {"$ne": "x"}}, True),
        ({"data.record.delay": {"$ne": 42}}, False),
        ({"data.record.delay": {"$gt": "1"}}, False),
        ({"data.table": {"$gt": "a"}}, True),
        ({"data.record.delay": {"$in": [1, 42]}}, True),
        ({"data.record.late": {"$in": [1]}}, False),
        ({"data.record": {"$in": [1]}}, False),
        ({"data.record.name": {"$regex": "^Z.r"}}, True),
        ({"data.record.name": {"$regex": "^z"}}, False),
        ({"data.record.name": {"$regex": "(?i)^z"}}, True),
        ({"data.record.delay": {"$regex": "42"}}, False),
        ({"$or": [{"topic": "x"}, {"time_s": 5}]}, True),
        ({"$or": [{"topic": "x"}, {"time_s": 6}]}, False),
        ({"$and": [{"topic": "database.change"}, {"time_s": 6}]}, False),
        ({"$not": {"topic": "x"}}, True),
        ({"$not": {}}, False),
        ({"$and": [{"$or": [{"topic": "x"}, {"$not": {"id": "2"}}]}, {"data.n": {"$not": {"$lt": 1}}}]}, True),
    ],
)
def test_a_filter_means_what_its_language_says(where: dict[str, Any], expected: bool) -> None:
    assert compile_filter(where)(EVENT) is expected


def deep(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"topic": "x"}
    for _ in range(levels):
        where = {"$not": where}
    return where


@pytest.mark.parametrize(
    "where",
    [
        [],
        {"$nor": []},
        {"$and": []},
        {"$and": {}},
        {"$or": ["x"]},
        {"$not": "x"},
        {"data.x": {}},
        {"data.x": {"$gt": None}},
        {"data.x": {"$gt": True}},
        {"data.x": {"$in": []}},
        {"data.x": {"$in": [[]]}},
        {"data.x": {"$in": list(range(101))}},
        {"data.x": {"$in": "abc"}},
        {"data.x": {"$where": "1"}},
        {"data.x": {"y": 1}},
        {"data.x": [1]},
        {"data.x": float("nan")},
        {"data.x": float("inf")},
        {"data.x": "x" * 1001},
        {"data": 1},
        {"topic.x": 1},
        {"other": 1},
        {"data..x": 1},
        {"data.": 1},
        {"": 1},
        {"data." + ".".join("x" * 12): 1},
        {1: 1},
        {"data.x": {"$regex": "("}},
        {"data.x": {"$regex": ""}},
        {"data.x": {"$regex": 1}},
        {"data.x": {"$regex": r"(a)\1"}},
        {"data.x": {"$regex": "(?=a)"}},
        {"data.x": {"$regex": "a{300}"}},
        {"data.x": {"$regex": "\ud800"}},
        {"data.x": {"$regex": "a" * 201}},
        {"$and": [{"data.x": {"$regex": "a{100}"}} for _ in range(3)]},
        {f"data.x{n}": 1 for n in range(101)},
        {"$or": [{"data.x": 1} for _ in range(101)]},
        deep(9),
    ],
)
def test_what_is_not_in_the_language_is_refused(where: Any) -> None:
    with pytest.raises(FilterRefused):
        compile_filter(where)


def test_a_refusal_names_the_place() -> None:
    with pytest.raises(FilterRefused, match=r"/\$or/1/data\.x/\$gt"):
        compile_filter({"$or": [{"topic": "x"}, {"data.x": {"$gt": []}}]})


def test_nesting_beyond_the_interpreters_own_is_refused() -> None:
    with pytest.raises(FilterRefused):
        compile_filter(deep(5000))


def test_depth_up_to_the_bound_is_taken() -> None:
    assert compile_filter(deep(8))({"topic": "x"}) is True


def test_the_worst_pattern_takes_little_on_the_longest_text() -> None:
    worst = compile_filter({"data.x": {"$regex": "(a|b)*a[ab]{200}c"}})
    started_s = time.process_time()
    assert worst({"data": {"x": "ab" * 500_000}}) is False
    assert time.process_time() - started_s < 1.0  # a backtracking one would not end


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=8
)
paths = st.sampled_from(["data.x", "data.x.y", "data.a.b.c", "topic", "time_s", "id"])
operands = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
tests = st.one_of(
    operands,
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), operands, min_size=1),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers() | st.text(), min_size=1),
    st.fixed_dictionaries({"$in": st.lists(operands, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"$regex": st.sampled_from(["a+", "^$", ".", "(?i)é|x"])}),
)
filters = st.recursive(
    st.dictionaries(paths, tests, max_size=3),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=4,
)
events = st.fixed_dictionaries(
    {},
    optional={
        "topic": values,
        "time_s": values,
        "id": values,
        "data": values | st.dictionaries(st.sampled_from("xyabc"), values | st.text(st.characters())),
    },
)


@given(filters, events)
def test_no_event_makes_a_filter_raise_and_it_agrees_with_the_plain_reading(
    where: dict[str, Any], event: dict[str, Any]
) -> None:
    assert compile_filter(where)(event) is plainly(where, event)


@given(values)
def test_any_value_is_a_filter_or_refused(where: Any) -> None:
    with suppress(FilterRefused):
        compile_filter(where)


def plainly(where: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """The language read naively, as the oracle."""
    return all(_entry(key, operand, event) for key, operand in where.items())


def _entry(key: str, operand: Any, event: Mapping[str, Any]) -> bool:
    if key == "$and":
        return all(plainly(one, event) for one in operand)
    if key == "$or":
        return any(plainly(one, event) for one in operand)
    if key == "$not":
        return not plainly(operand, event)
    found: list[Any] = [event]
    for name in key.split("."):
        found = [found[0][name]] if found and isinstance(found[0], dict) and name in found[0] else []
    conditions = operand if isinstance(operand, dict) else {"$eq": operand}
    return all(_holds(name, found, limit) for name, limit in conditions.items())


def _holds(name: str, found: list[Any], limit: Any) -> bool:
    import re

    if name == "$ne":
        return not _holds("$eq", found, limit)
    if not found:
        return False
    value = found[0]
    if name == "$in":
        return any(_holds("$eq", found, one) for one in limit)
    if name == "$regex":
        return isinstance(value, str) and re.search(limit.replace("^$", r"\A\Z"), value[:1024]) is not None
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (value, limit))
    if not numbers and type(value) is not type(limit):
        return False
    if name == "$eq":
        return bool(value == limit)
    compare = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}[name]
    return bool(compare(value, limit))
