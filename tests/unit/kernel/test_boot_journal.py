"""What a node remembers of its boots, in whatever way the former one ended."""

from __future__ import annotations

import os
from typing import Any

import pytest

from magmobo.contracts.errors import MagError
from magmobo.contracts.stores import State, StateEntry
from magmobo.kernel.journal import KEY, BootEntry, BootJournal


class Unwritable(MagError):
    """The test wants it so."""

    code = "MAG-TEST-010"

    def __str__(self) -> str:
        return "disk full"


class Keys:
    """As much of `State` as a journal asks for."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.broken = False

    async def get(self, key: str) -> StateEntry | None:
        if self.broken:
            raise Unwritable
        return StateEntry(key, self.values[key], 1) if key in self.values else None

    async def put(self, key: str, value: Any) -> None:
        if self.broken:
            raise Unwritable
        self.values[key] = value


def journal(keys: Any) -> BootJournal:
    state: State = keys
    return BootJournal(state)


async def begin(keys: Keys) -> BootJournal:
    begun = journal(keys)
    await begun.begin(time_s=100.0, stage="kernel_init", pid=os.getpid())
    return begun


async def test_the_first_boot_has_no_former_one() -> None:
    first = await begin(Keys())
    assert (first.former, first.problem) == (None, "")


@pytest.mark.parametrize(
    ("outcome", "died_booting", "died_serving"),
    [(None, True, False), ("ready", False, True), ("failed", False, False), ("stopped", False, False)],
)
async def test_the_next_boot_knows_how_the_former_one_ended(
    outcome: Any, died_booting: bool, died_serving: bool
) -> None:
    keys = Keys()
    first = await begin(keys)
    await first.entered("component_load")
    if outcome:
        await first.ended(outcome)
    former = (await begin(keys)).former
    assert former is not None
    assert (former.seq, former.stage, former.pid) == (1, "component_load", os.getpid())
    assert (former.died_booting, former.died_serving) == (died_booting, died_serving)


async def test_boots_are_counted_through_crashes() -> None:
    keys = Keys()
    for _ in range(3):
        await begin(keys)
    assert keys.values[KEY]["seq"] == 3


@pytest.mark.parametrize("nonsense", [None, 7, [], {}, {"seq": "x"}, {"seq": 1, "outcome": "gone"}])
async def test_an_entry_that_cannot_be_read_counts_as_none_and_is_said(nonsense: Any) -> None:
    keys = Keys()
    keys.values[KEY] = nonsense
    found = await begin(keys)
    assert found.former is None
    assert "cannot be read" in found.problem
    assert keys.values[KEY]["seq"] == 1


async def test_a_state_store_that_cannot_be_used_keeps_no_node_from_starting() -> None:
    keys = Keys()
    keys.broken = True
    found = await begin(keys)
    await found.entered("post")
    await found.ended("ready")
    assert found.problem == "disk full [MAG-TEST-010]"


async def test_what_never_began_does_not_end() -> None:
    keys = Keys()
    await journal(keys).ended("failed")
    assert keys.values == {}


def test_an_entry_is_plain_data() -> None:
    assert BootEntry(1, 2.0, "post", 3, "booting").died_booting
