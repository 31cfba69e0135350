"""How long something waits for a limit of the node, and when that is over. The gate is a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from tests.integration.extensions.mediation import grant, installed, mediation

from magmobo.extensions.events.waits import LEAST_S, MOST_S, Wait, Waits, believed_s
from magmobo.extensions.gate.errors import GateRefused
from magmobo.extensions.gate.gatekeeper import FREE_RATE_PER_MINUTE, Gatekeeper
from magmobo.extensions.gate.hours import DAY_S
from magmobo.extensions.installed import ApiMethod, Caller, Installed
from magmobo.testing.clock import FakeClock

SEND, READ = "realtime.broadcast", "database.read"
HANDLER = "event:heard"


class Args(Struct, frozen=True):
    pass


async def handle(caller: Caller, args: Args) -> None:
    """Nobody asks for it here."""


METHODS = {name: ApiMethod(name, name, Args, handle) for name in (SEND, READ)}
FREE = ApiMethod("kv.get", "", Args, handle)


class Place:
    """One extension at a gate whose clock the test moves."""

    def __init__(self, gate: Gatekeeper, clock: FakeClock, extension: Installed) -> None:
        self.gate, self.clock, self.extension = gate, clock, extension
        self.waits = Waits(gate, clock)

    def grants(self, **named: Any) -> None:
        self.extension.grants = {name: grant(name, **named) for name in METHODS}

    def meets(self, method: ApiMethod) -> float:
        """Calls until it is refused; how long the node says."""
        while True:
            try:
                self.gate.allow(Caller(self.extension, (), inf), method)
            except GateRefused as refused:
                return refused.retry_s

    def begin(self, *said_s: float, since_s: float = 0.0) -> Wait:
        return self.waits.begin(self.extension, HANDLER, since_s, said_s)

    def lasts_s(self, wait: Wait) -> float:
        return wait.until_s - self.clock.monotonic_s()

    def is_over(self, wait: Wait) -> bool:
        return self.waits.is_over(self.extension, wait)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with mediation(tmp_path) as plane:
        clock = FakeClock(time_s=20_000.0 * DAY_S + 3600)
        gate = Gatekeeper(clock, plane.audit, plane.bus, plane.metrics.scoped("waits"))
        yield Place(gate, clock, installed(tmp_path, "one", "", grants=()))
        await gate.close()


@pytest.mark.parametrize(
    ("said", "waited_s"),
    [
        ([12.5], 12.5),
        ([1.0, 30.0, nan], 30.0),
        ([nan], LEAST_S),
        ([-inf], LEAST_S),
        ([0.0], LEAST_S),
        ([inf], MOST_S),
        ([1e300], MOST_S),
    ],
)
async def test_what_a_worker_alone_says_is_believed_within_what_a_rate_can_be(
    place: Place, said: list[float], waited_s: float
) -> None:
    wait = place.begin(*said)
    assert (wait.names, place.lasts_s(wait)) == ([], waited_s)
    assert not place.is_over(wait)
    await place.clock.advance(waited_s)
    assert place.is_over(wait)


@given(st.floats())
def test_no_word_of_a_worker_is_waited_for_without_bounds(said_s: float) -> None:
    assert LEAST_S <= believed_s(said_s) <= MOST_S


async def test_a_spent_budget_is_waited_for_until_midnight(place: Place) -> None:
    place.grants(budget_per_day=3)
    wait = place.begin(place.meets(METHODS[SEND]))
    assert (wait.names, wait.kind, place.lasts_s(wait)) == ([SEND], "budget", DAY_S - 3600)
    await place.clock.advance(DAY_S - 3601)
    assert not place.is_over(wait)
    await place.clock.advance(1)
    assert place.is_over(wait)


async def test_a_wait_is_over_when_the_budget_is_raised_or_the_capability_is_taken_back(place: Place) -> None:
    place.grants(budget_per_day=3)
    wait = place.begin(place.meets(METHODS[SEND]))
    place.grants(budget_per_day=3)
    assert not place.is_over(wait), "the same budget, granted anew"
    place.grants(budget_per_day=4)
    assert place.is_over(wait)
    place.grants()
    assert place.is_over(wait)
    place.extension.grants = {}
    assert place.is_over(wait)


async def test_a_budget_that_is_raised_while_the_rate_keeps_back_is_over(place: Place) -> None:
    place.grants(budget_per_day=5, rate_per_minute=5)
    wait = place.begin(place.meets(METHODS[SEND]))
    assert wait.kind == "budget"
    place.grants(rate_per_minute=5)
    assert place.is_over(wait), "who goes on learns of the rate, which is another wait"


async def test_only_what_was_met_meanwhile_is_waited_for(place: Place) -> None:
    place.grants(budget_per_day=2)
    place.meets(METHODS[READ])
    await place.clock.advance(5)
    since_s = place.clock.monotonic_s()
    wait = place.begin(place.meets(METHODS[SEND]), since_s=since_s)
    assert wait.names == [SEND]
    await place.clock.advance(5)
    wait = place.begin(80_000.0, since_s=place.clock.monotonic_s())
    assert (wait.names, place.lasts_s(wait)) == ([], MOST_S), "the gate refused nothing in that time"


async def test_of_two_budgets_one_is_enough_to_go_on(place: Place) -> None:
    place.grants(budget_per_day=2)
    said = [place.meets(method) for method in METHODS.values()]
    wait = place.begin(*said)
    assert sorted(wait.names) == sorted(METHODS)
    place.extension.grants = {**place.extension.grants, READ: grant(READ)}
    assert place.is_over(wait)


async def test_a_rate_is_not_taken_for_a_budget_that_is_spent_beside_it(place: Place) -> None:
    place.grants(rate_per_minute=30)
    place.extension.grants = {**place.extension.grants, READ: grant(READ, budget_per_day=2)}
    place.meets(METHODS[READ])
    said_s = place.meets(METHODS[SEND])
    wait = place.begin(said_s)
    assert (wait.names, wait.kind) == ([SEND], "rate")
    assert place.lasts_s(wait) == said_s == 2.0
    await place.clock.advance(said_s)
    assert place.is_over(wait)


async def test_a_rate_that_is_raised_is_over(place: Place) -> None:
    place.grants(rate_per_minute=1)
    wait = place.begin(place.meets(METHODS[SEND]))
    assert (wait.names, wait.kind, place.lasts_s(wait)) == ([SEND], "rate", 60.0)
    await place.clock.advance(1)
    assert not place.is_over(wait)
    place.grants(rate_per_minute=600)
    assert not place.is_over(wait), "its bucket is empty still"
    await place.clock.advance(0.1)
    assert place.is_over(wait)


async def test_the_last_minute_of_a_day_is_a_budget_too(place: Place) -> None:
    place.grants(budget_per_day=1)
    await place.clock.advance(DAY_S - 3600 - 10)
    wait = place.begin(place.meets(METHODS[SEND]))
    assert (wait.names, wait.kind, place.lasts_s(wait)) == ([SEND], "budget", 10.0)


async def test_methods_that_take_no_capability_have_a_rate_too(place: Place) -> None:
    wait = place.begin(place.meets(FREE))
    assert (wait.names, wait.kind, place.lasts_s(wait)) == (["kv.get"], "rate", LEAST_S)
    assert 60 / FREE_RATE_PER_MINUTE < LEAST_S


@pytest.mark.parametrize("named", [{"hours": "09:00-17:00"}, {"expires_at_s": 20_000.0 * DAY_S}])
async def test_what_may_not_be_asked_at_all_is_no_limit(place: Place, named: dict[str, Any]) -> None:
    place.grants(budget_per_day=2)
    wait = place.begin(place.meets(METHODS[SEND]))
    place.grants(budget_per_day=2, **named)
    assert place.is_over(wait), "it is refused at once, and no time of waiting changes that"
