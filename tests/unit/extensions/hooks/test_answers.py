"""What an answer of a hook may change: the mutable fields of its point, each of its type, nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from magmobo.contracts.hooks import HOOK_POINTS, BroadcastContext, RequestContext
from magmobo.extensions.hooks.answers import Answers, BadAnswer

REQUEST = RequestContext(
    request_id="1", method="GET", path="/", query="select=*", table="public.a", role="anon", anonymous=True,
    claims="{}", headers={}, body="{}", body_bytes=2,
)  # fmt: skip
ANSWERS = Answers(HOOK_POINTS["api.before_request"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def raw(value: Any) -> Raw:
    return Raw(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("nothing", [None, {}])
def test_nothing_changes_nothing(nothing: Any) -> None:
    assert ANSWERS.apply(REQUEST, raw(nothing)) is REQUEST


def test_mutable_fields_change_and_others_stay() -> None:
    changed = ANSWERS.apply(REQUEST, raw({"query": "select=id"}))
    assert changed == structs.replace(REQUEST, query="select=id")
    assert ANSWERS.apply(REQUEST, raw({"query": "a", "body": "b"})) == structs.replace(REQUEST, query="a", body="b")


@pytest.mark.parametrize(
    "bad",
    [
        {"role": "admin"},
        {"query": "a", "role": "admin"},
        {"query": 5},
        {"query": None},
        {"query": b"a"},
        [],
        "query",
        5,
    ],
)
def test_anything_else_is_refused_as_a_whole(bad: Any) -> None:
    with pytest.raises(BadAnswer):
        ANSWERS.apply(REQUEST, raw(bad))


def test_a_point_where_nothing_is_mutable_takes_no_field() -> None:
    answers = Answers(HOOK_POINTS["api.rbac_check"])
    assert answers.apply(REQUEST, raw({})) is REQUEST
    with pytest.raises(BadAnswer):
        answers.apply(REQUEST, raw({"query": "a"}))


@given(st.binary(max_size=40) | VALUES.map(msgspec.msgpack.encode))
def test_whatever_is_answered_the_other_fields_stay(packed: bytes) -> None:
    context = BroadcastContext(app="a", channel="c", event="e", data="d", origin="api")
    try:
        changed = Answers(HOOK_POINTS["realtime.before_broadcast"]).apply(context, Raw(packed))
    except BadAnswer as bad:
        text = str(bad)
    else:
        text = ""
        assert structs.replace(changed, data="d") == context
    assert len(text) <= 300


def test_an_answer_as_a_map() -> None:
    assert Answers.mapping(raw(None)) is None
    assert Answers.mapping(raw({"a": [1]})) == {"a": [1]}
    for bad in ([], 5, {1: 2}):
        with pytest.raises(BadAnswer):
            Answers.mapping(raw(bad))
