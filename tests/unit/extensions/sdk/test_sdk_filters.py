"""Filters in an author's tests say what the node's say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.extensions.languages.filters import compile_filter
from magmobo.extensions.package.scopes import topic_words, topics_meet
from magx.filters import passes, topic_matches

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, -2.5, "", "a", "ab", "1"])
ordered = st.integers(-3, 3) | st.sampled_from([0.5, "a", "ab"])
values = st.recursive(scalars, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6)
events = st.builds(
    lambda data: {"id": "1", "topic": "a.b", "time_s": 1.5, "data": data},
    st.dictionaries(st.sampled_from("abc"), values, max_size=3),
)
paths = st.sampled_from(["id", "topic", "time_s", "data.a", "data.b", "data.a.b", "data.a.b.c"])
plain_operators = (
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), scalars, min_size=1)
    | st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ordered, min_size=1)
    | st.fixed_dictionaries({"$in": st.lists(scalars, min_size=1, max_size=3)})
    | st.fixed_dictionaries({"$regex": st.sampled_from(["a", "^a", "b$", "[ab]+", "^$"])})
)


def negated(operators: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return operators | st.fixed_dictionaries({"$not": operators})


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        inner
        | st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"$not": inner})
    )


conditions = st.dictionaries(paths, scalars | negated(negated(plain_operators)), max_size=2)
filters = combined(combined(conditions))
"""Less deep than the node refuses."""


def event_of(**data: Any) -> dict[str, Any]:
    return {"id": "1", "topic": "a.b", "time_s": 1.5, "data": data}


@given(filters, events)
@example({"data.a": 1}, event_of(a=True))
@example({"data.a": {"$in": [0]}}, event_of(a=False))
@example({"data.a": {"$gt": 0}}, event_of(a=True))
@example({"data.a": {"$ne": 1}}, event_of())
@example({"data.a": 1}, event_of(a=1.0))
@example({"data.a": {"$not": {"$regex": "a"}}}, event_of(a=5))
def test_the_same_events_pass(where: dict[str, Any], event: dict[str, Any]) -> None:
    assert passes(where, event) is compile_filter(where)(event)


words = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4)
patterns = st.builds(
    lambda body, deep: ".".join(body + ["**"] * deep),
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3),
    st.booleans(),
)


@given(patterns, words)
def test_the_same_topics_are_meant(pattern: str, topic: list[str]) -> None:
    assert topic_matches(pattern, ".".join(topic)) is topics_meet(topic_words(pattern), ".".join(topic))


def test_an_operator_that_there_is_not_says_so() -> None:
    with pytest.raises(ValueError, match=r"no such operator: \$near"):
        passes({"data.a": {"$near": 1}}, {"data": {"a": 1}})
