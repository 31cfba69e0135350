"""What the state store takes, and who hears of its changes: no file involved."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.contracts.errors import StateValueRefused
from magmobo.contracts.stores import StateEntry
from magmobo.kernel.state.values import MAX_VALUE_BYTES, checked_key, decoded, encoded
from magmobo.kernel.state.watch import Watchers

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
@example(None)
@example("null")
@example([None, "null", {"null": None}])
def test_what_json_can_say_comes_back_as_it_was(value: Any) -> None:
    assert decoded(encoded("key", value)) == value


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, [1, {"a": math.nan}], (None, math.inf), {1.5: [math.nan]}, {math.nan},
     object(), {"a": object()}, "a\ud800", {"\ud800": 1}],
)  # fmt: skip
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(StateValueRefused):
        encoded("key", value)


def test_a_value_without_an_end_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(StateValueRefused):
        encoded("key", nested)


def test_a_value_may_have_one_mebibyte_as_json_and_no_byte_more() -> None:
    assert len(encoded("key", "x" * (MAX_VALUE_BYTES - 2))) == MAX_VALUE_BYTES
    with pytest.raises(StateValueRefused) as refusal:
        encoded("key", "x" * (MAX_VALUE_BYTES - 1))
    assert "xxx" not in str(refusal.value), "values may be secret"


@pytest.mark.parametrize("key", ["", "k" * 201, "a\ud800"])
def test_a_key_out_of_bounds_is_refused(key: str) -> None:
    with pytest.raises(StateValueRefused):
        checked_key(key)


@pytest.mark.parametrize("key", ["a", "k" * 200, "\U0010ffff" * 200, "a\0b", "ä/ö"])
def test_any_other_key_is_taken(key: str) -> None:
    assert checked_key(key) == key


# ------------------------------------------------------------ watchers


def entry() -> StateEntry:
    return StateEntry("jobs/1", {"at": [1]}, 1)


def test_a_watcher_that_raises_is_reported_and_hurts_nobody() -> None:
    failures: list[tuple[str, str, str]] = []
    watchers = Watchers(lambda owner, key, error: failures.append((owner, key, str(error))))
    heard: list[str] = []

    def fail(entry: StateEntry | None, key: str) -> None:
        raise RuntimeError("no")

    watchers.add("a", "", fail)
    watchers.add("a", "jobs/", lambda entry, key: heard.append(key))
    watchers.tell("a", "jobs/1", entry)
    assert heard == ["jobs/1"]
    assert failures == [("a", "jobs/1", "no")]


def test_each_watcher_gets_a_value_of_its_own() -> None:
    watchers = Watchers(lambda *_: None)
    seen: list[Any] = []

    def spoil(entry: StateEntry | None, key: str) -> None:
        assert entry is not None
        entry.value["at"].append(2)

    watchers.add("a", "", spoil)
    watchers.add("a", "", lambda entry, key: seen.append(entry and entry.value))
    watchers.tell("a", "jobs/1", entry)
    assert seen == [{"at": [1]}]


def test_only_the_owner_and_the_prefix_hear() -> None:
    watchers = Watchers(lambda *_: None)
    heard: list[str] = []
    watchers.add("a", "jobs", lambda entry, key: heard.append("jobs"))
    watchers.add("a", "job/", lambda entry, key: heard.append("job/"))
    watchers.add("b", "", lambda entry, key: heard.append("other owner"))
    watchers.tell("a", "jobs/1", entry)
    assert heard == ["jobs"]


def test_a_watcher_can_end_itself_and_the_next_while_it_is_told() -> None:
    watchers = Watchers(lambda *_: None)
    heard: list[str] = []

    def end_both(entry: StateEntry | None, key: str) -> None:
        heard.append("first")
        first.cancel()
        second.cancel()
        second.cancel()

    first = watchers.add("a", "", end_both)
    second = watchers.add("a", "", lambda entry, key: heard.append("second"))
    watchers.tell("a", "k", entry)
    watchers.tell("a", "k", entry)
    assert heard == ["first"]
    assert watchers.count("a") == 0


def test_closing_an_owner_ends_its_watchers_also_in_the_middle() -> None:
    watchers = Watchers(lambda *_: None)
    heard: list[str] = []
    watchers.add("a", "", lambda entry, key: watchers.close_owner("a"))
    watchers.add("a", "", lambda entry, key: heard.append("a"))
    watchers.add("b", "", lambda entry, key: heard.append("b"))
    watchers.tell("a", "k", entry)
    watchers.tell("b", "k", entry)
    assert heard == ["b"]
    assert (watchers.count("a"), watchers.count("b")) == (0, 1)
