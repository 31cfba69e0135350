"""The state store beside a dict that does the same, in any order of calls, over closing and opening it again."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from magmobo.contracts.errors import VersionConflict
from magmobo.contracts.stores import StateEntry
from magmobo.kernel.state.manager import StateManager

T = TypeVar("T")
OWNERS = ("a", "b", "ab")
keys = st.sampled_from(["a", "b", "ab", "ab/c", "ab/\U0010ffff", "ab0", "ß", "x" * 200])
values = st.none() | st.integers(-3, 3) | st.text(max_size=3) | st.just("y" * 9_000) | st.just({"list": [1, None]})
expected = st.none() | st.integers(0, 12)
owners = st.sampled_from(OWNERS)


class Model:
    """What a state store of one owner is."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[Any, int]] = {}
        self.floor = 0
        self.heard: list[tuple[str, Any, int]] = []

    def put(self, key: str, value: Any, expected: int | None = None) -> int | None:
        version = self.entries[key][1] if key in self.entries else 0
        if expected not in (None, version):
            return None
        version = (version or self.floor) + 1
        self.entries[key] = value, version
        self.heard.append((key, value, version))
        return version

    def delete(self, key: str, expected: int | None) -> bool | None:
        version = self.entries[key][1] if key in self.entries else 0
        if expected not in (None, version):
            return None
        if version:
            del self.entries[key]
            self.floor = max(self.floor, version)
            self.heard.append((key, None, 0))
        return version > 0


class StateMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.models = {owner: Model() for owner in OWNERS}
        self.heard: dict[str, list[tuple[str, Any, int]]] = {owner: [] for owner in OWNERS}
        self.open()

    def open(self) -> None:
        self.manager = StateManager(Path(self.folder.name) / "state.db")
        self.run(self.manager.open())
        assert not self.manager.problems
        for owner in OWNERS:
            self.manager.scope(owner).watch("", self.hear(owner))

    def hear(self, owner: str) -> Any:
        def heard(entry: StateEntry | None, key: str) -> None:
            self.heard[owner].append((key, entry and entry.value, entry.version if entry else 0))

        return heard

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def attempt(self, call: Coroutine[Any, Any, T]) -> T | None:
        try:
            return await call
        except VersionConflict:
            return None

    @rule(owner=owners, key=keys, value=values, expected=expected)
    def put(self, owner: str, key: str, value: Any, expected: int | None) -> None:
        entry = self.run(self.attempt(self.manager.scope(owner).put(key, value, expected_version=expected)))
        version = self.models[owner].put(key, value, expected)
        assert (entry and (entry.key, entry.value, entry.version)) == (version and (key, value, version))

    @rule(owner=owners, key=keys, expected=expected)
    def delete(self, owner: str, key: str, expected: int | None) -> None:
        removed = self.run(self.attempt(self.manager.scope(owner).delete(key, expected_version=expected)))
        assert removed == self.models[owner].delete(key, expected)

    @rule(owner=owners, items=st.dictionaries(keys, values, max_size=4))
    def put_all(self, owner: str, items: dict[str, Any]) -> None:
        entries = self.run(self.manager.scope(owner).put_all(items))
        versions = [self.models[owner].put(key, value) for key, value in items.items()]
        assert [(entry.key, entry.version) for entry in entries] == list(zip(items, versions, strict=True))

    @rule(calls=st.lists(st.tuples(owners, keys, values | st.just("remove"), expected), max_size=12))
    def many_at_once(self, calls: list[tuple[str, str, Any, int | None]]) -> None:
        async def together() -> list[Any]:
            return await asyncio.gather(
                *(
                    self.attempt(
                        self.manager.scope(owner).delete(key, expected_version=expected)
                        if value == "remove"
                        else self.manager.scope(owner).put(key, value, expected_version=expected)
                    )
                    for owner, key, value, expected in calls
                )
            )

        for (owner, key, value, expected), found in zip(calls, self.run(together()), strict=True):
            if value == "remove":
                assert found == self.models[owner].delete(key, expected)
            else:
                assert (found and found.version) == self.models[owner].put(key, value, expected)

    @rule(owner=owners, key=keys)
    def get(self, owner: str, key: str) -> None:
        entry = self.run(self.manager.scope(owner).get(key))
        assert (entry and (entry.value, entry.version)) == self.models[owner].entries.get(key)

    @rule(owner=owners, prefix=st.sampled_from(["", "a", "ab", "ab/", "ab/\U0010ffff", "zz"]))
    def entries(self, owner: str, prefix: str) -> None:
        found = self.run(self.manager.scope(owner).entries(prefix))
        kept = {key: kept for key, kept in self.models[owner].entries.items() if key.startswith(prefix)}
        assert [entry.key for entry in found] == sorted(kept)
        assert {entry.key: (entry.value, entry.version) for entry in found} == kept

    @rule()
    def watchers_heard_all_in_order(self) -> None:
        assert self.heard == {owner: model.heard for owner, model in self.models.items()}

    @precondition(lambda self: any(model.entries for model in self.models.values()))
    @rule()
    def open_again(self) -> None:
        self.run(self.manager.close())
        self.open()

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.watchers_heard_all_in_order()
            self.run(self.manager.close())
            self.runner.close()
            self.folder.cleanup()


def test_the_store_does_what_a_dict_does() -> None:
    run_state_machine_as_test(StateMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
