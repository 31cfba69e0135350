"""The memory layer beside a model of it, and its accounting beside what Python really takes."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from magmobo.kernel.cache.keys import Name, self_token_key, tag_token_keys, value_key
from magmobo.kernel.cache.memory import Entry, MemoryLayer, size_of
from magmobo.kernel.cache.stored import body_of, new_token, parsed, token_keys
from magmobo.kernel.cache.tags import FORGET_EVERYTHING, Invalidation, forget_key, forget_tag

OWNERS, TENANTS, KEYS, TAGS = ("a", "b"), ("", "t", "u"), ("k", "l", "m", "n"), ("x", "y")
names = st.builds(Name, st.sampled_from(OWNERS), st.sampled_from(TENANTS), st.sampled_from(KEYS))
tags = st.lists(st.sampled_from(TAGS), unique=True).map(tuple)
orders = (
    st.builds(forget_key, names)
    | st.builds(forget_tag, st.sampled_from(OWNERS), st.sampled_from(TAGS), st.none() | st.sampled_from(TENANTS))
    | st.just(FORGET_EVERYTHING)
)


class MemoryMachine(RuleBasedStateMachine):
    """The model is a dict in the order of use, searched from end to end for everything."""

    @initialize(limit_bytes=st.integers(0, 8_000))
    def begin(self, limit_bytes: int) -> None:
        self.limit_bytes, self.now_s = limit_bytes, 0.0
        self.memory = MemoryLayer(limit_bytes)
        self.model: dict[Name, Entry] = {}

    def model_bytes(self) -> int:
        return sum(size_of(name, entry) for name, entry in self.model.items())

    @rule(name=names, size=st.integers(0, 3_000), fresh_s=st.integers(0, 5), stale_s=st.integers(0, 5), tags=tags)
    def put(self, name: Name, size: int, fresh_s: int, stale_s: int, tags: tuple[str, ...]) -> None:
        entry = Entry(bytes(size), self.now_s + fresh_s, self.now_s + fresh_s + stale_s, tags)
        self.memory.put(name, entry)
        self.model.pop(name, None)
        if size_of(name, entry) <= self.limit_bytes:
            while self.model_bytes() + size_of(name, entry) > self.limit_bytes:
                del self.model[next(iter(self.model))]
            self.model[name] = entry

    @rule(name=names)
    def get(self, name: Name) -> None:
        expected = self.model.pop(name, None)
        if expected is not None and expected.stale_until_s > self.now_s:
            self.model[name] = expected
        else:
            expected = None
        assert self.memory.get(name, self.now_s) == expected

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(order=orders)
    def forget(self, order: Invalidation) -> None:
        self.memory.forget(order)
        self.model = {name: entry for name, entry in self.model.items() if not order.concerns(name, entry.tags)}

    @rule(owner=st.sampled_from(OWNERS))
    def forget_owner(self, owner: str) -> None:
        self.memory.forget_owner(owner)
        self.model = {name: entry for name, entry in self.model.items() if name.owner != owner}

    @invariant()
    def is_as_the_model(self) -> None:
        if not hasattr(self, "memory"):
            return
        assert self.memory.size_bytes == self.model_bytes() <= self.limit_bytes
        assert self.memory.names() == tuple(self.model)
        tagged = sum(len(named) for named in self.memory._by_tag.values())
        assert tagged == sum(len(entry.tags) for entry in self.model.values()), "the index of tags leaks"


TestMemory = MemoryMachine.TestCase


@pytest.mark.parametrize(("value_bytes", "tags_each"), [(10, 0), (10, 2), (100, 5), (2_000, 1)])
def test_the_bytes_counted_are_the_bytes_taken(value_bytes: int, tags_each: int) -> None:
    memory, entries = MemoryLayer(1 << 30), 4_000
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(entries):
            tags = tuple(f"tag {number} {tag}" for tag in range(tags_each))
            entry = Entry(bytes(value_bytes), number + 0.5, number + 1.5, tags)
            memory.put(Name("owner", f"tenant {number % 9}", f"key {number}"), entry)
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.85 < memory.size_bytes / taken_bytes < 1.2, (memory.size_bytes, taken_bytes)


# ------------------------------------------------------------ names

texts = st.text(st.sampled_from("a1:,é\0\ud800"), max_size=5)
any_names = st.builds(Name, texts, texts, texts)


@given(any_names, any_names)
@example(Name("a:1", "b", "c"), Name("a", "1:b", "c"))
@example(Name("a", "b:c", ""), Name("a", "b", "c:"))
@example(Name("a", "1:b", "c"), Name("a", "1", "b1:c"))
def test_two_names_never_meet_in_redis(one: Name, other: Name) -> None:
    assert (value_key(one) == value_key(other)) == (one == other)
    assert (self_token_key(one) == self_token_key(other)) == (one == other)
    assert value_key(one) != self_token_key(other)


@given(any_names, texts, any_names, texts)
@example(Name("a", "b", "k"), "c:d", Name("a", "b:c", "k"), "d")
@example(Name("a:b", "t", "k"), "c", Name("a", "t", "k"), "b:c")
def test_two_tags_never_meet_in_redis(one: Name, tag: str, other: Name, other_tag: str) -> None:
    of_tenant, of_all = zip(tag_token_keys(one, tag), tag_token_keys(other, other_tag), strict=True)
    same_tag = (one.owner, tag) == (other.owner, other_tag)
    assert (of_all[0] == of_all[1]) == same_tag
    assert (of_tenant[0] == of_tenant[1]) == (same_tag and one.tenant == other.tenant)
    assert not {*of_tenant} & {*of_all}


@given(names, st.lists(st.sampled_from(TAGS), unique=True).map(tuple), orders)
def test_an_order_takes_a_token_from_just_those_it_concerns(
    name: Name, tags: tuple[str, ...], order: Invalidation
) -> None:
    assert order.concerns(name, tags) == (order.token_key() in token_keys(name, tags))


NAME = Name("owner", "tenant", "key")


def stored(name: Name, tags: tuple[str, ...]) -> bytes:
    tokens = [new_token() for _ in token_keys(name, tags)]
    return bytes([len(tokens)]) + b"".join(tokens) + body_of(name, b"value", tags, 5)


@given(tags)
def test_what_is_stored_is_known_again_under_its_own_name_only(tags: tuple[str, ...]) -> None:
    found = parsed(NAME, stored(NAME, tags))
    assert found is not None
    assert (found[1].value, found[1].tags, len(found[0])) == (b"value", tags, 2 + 2 * len(tags))
    assert parsed(Name("owner", "other", "key"), stored(NAME, tags)) is None


@given(st.binary() | st.none() | st.text() | st.lists(st.binary()))
def test_anything_else_is_nothing(content: Any) -> None:
    assert parsed(NAME, content) is None


@given(st.integers(0, 10_000), st.binary(max_size=20))
def test_a_stored_value_that_was_cut_is_nothing(length: int, more: bytes) -> None:
    content = stored(NAME, ("x",))
    assert parsed(NAME, content[: length % len(content)]) is None
    assert more == b"" or parsed(NAME, content + more) is None
