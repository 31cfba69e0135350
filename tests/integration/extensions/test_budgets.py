"""Budgets of a day on a real Postgres: what one node spends, others and later ones know of, within what is promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import Struct
from tests.integration.extensions.lifecycle_parts import PlayedDatabase, execute, rows
from tests.integration.extensions.mediation import Mediation, grant, installed, mediation

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.extensions import LimitInfo
from magmobo.extensions.gate.budgets import EVERY_S, Budgets
from magmobo.extensions.gate.errors import BudgetSpent, RateLimited
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.gate.hours import DAY_S
from magmobo.extensions.gate.limits import read_limits
from magmobo.extensions.installed import ApiMethod, Caller, Installed
from magmobo.extensions.lifecycle.schema import MIGRATIONS
from magmobo.testing.clock import FakeClock

DAY = 20_000
SPENT = "select extension_id, capability, calls from mag.extension_spent order by 1, 2"


class Args(Struct, frozen=True):
    pass


async def handle(caller: Caller, args: Args) -> None:
    """Nobody asks for it here."""


PUBLISH = ApiMethod("realtime.broadcast", "realtime.broadcast", Args, handle)
READ = ApiMethod("db.fetch", "database.read", Args, handle)


class GateNode:
    """Gate and budgets of one node."""

    def __init__(self, dsn: str, plane: Mediation, folder: Path, clock: FakeClock, budget: int | None) -> None:
        self.database, self.clock = PlayedDatabase(dsn), clock
        self.gatekeeper = Gatekeeper(clock, plane.audit, plane.bus, plane.metrics.scoped(f"n{id(self)}"))
        self.running: dict[str, Installed] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.grants(folder, "one", budget)
        self.budgets = Budgets(
            self.gatekeeper, self.database, clock, structlog.stdlib.get_logger(),
            installed=lambda: self.running, spawn=self._spawn,
        )  # fmt: skip

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    def grants(self, folder: Path, extension_id: str, budget: int | None) -> None:
        extension = installed(folder, extension_id, "", grants=())
        extension.grants = {"realtime.broadcast": grant("realtime.broadcast", budget_per_day=budget)}
        extension.grants |= {"database.read": grant("database.read")}
        self.running[extension_id] = extension

    def spend(self, wanted: int, *, of: str = "one", method: ApiMethod = PUBLISH) -> int:
        """How many of these calls were let through, all in one turn of the loop."""
        caller, made = Caller(self.running[of], (), float("inf")), 0
        for _ in range(wanted):
            try:
                self.gatekeeper.allow(caller, method)
            except BudgetSpent:
                continue
            made += 1
        return made

    async def die(self) -> None:
        """As killed: nothing is said any more."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Nodes:
    """Makes nodes on one database; what is left of them ends with the test."""

    def __init__(self, dsn: str, plane: Mediation, folder: Path, clock: FakeClock) -> None:
        self._made = dsn, plane, folder
        self.clock, self.all = clock, list[GateNode]()

    @asynccontextmanager
    async def start(self, budget: int | None = 10) -> AsyncIterator[GateNode]:
        """A node from its start to its stop in order."""
        node = await self.begun(budget)
        yield node
        await node.budgets.stop()

    async def begun(self, budget: int | None = 10) -> GateNode:
        node = GateNode(*self._made, self.clock, budget)
        self.all.append(node)
        await node.budgets.start()
        return node

    async def rounds(self, nodes: Iterable[GateNode], count: int = 1) -> None:
        """As many rounds of each, one after the other."""
        for _ in range(count):
            for node in nodes:
                await node.budgets.share()


@pytest.fixture
async def nodes(dsn: str, tmp_path: Path) -> AsyncIterator[Nodes]:
    execute(dsn, "create schema if not exists mag; " + MIGRATIONS[-1].up)
    async with mediation(tmp_path) as plane:
        nodes = Nodes(dsn, plane, tmp_path, FakeClock(time_s=float(DAY * DAY_S)))
        yield nodes
        for node in nodes.all:
            await node.die()
            await node.gatekeeper.close()
            await node.database.pool.close()


async def test_a_restart_gives_no_budget_anew(nodes: Nodes, dsn: str) -> None:
    async with nodes.start() as node:
        assert node.spend(7) == 7
        assert rows(dsn, SPENT) == [], "no call waits for the database"
    assert rows(dsn, SPENT) == [("one", "realtime.broadcast", 7)]
    async with nodes.start() as node:
        assert node.spend(100) == 3
    async with nodes.start() as node:
        assert node.spend(100) == 0
        await nodes.clock.advance(DAY_S)
        assert node.spend(100) == 10, "midnight gives it anew"
    assert rows(dsn, "select day, calls from mag.extension_spent order by 1") == [(DAY, 10), (DAY + 1, 10)]


async def test_a_node_that_is_killed_forgets_what_it_did_since_its_last_round(nodes: Nodes) -> None:
    node = await nodes.begun()
    assert node.spend(4) == 4
    await nodes.rounds([node])
    assert node.spend(2) == 2
    await node.die()
    async with nodes.start() as node:
        assert node.spend(100) == 6


async def test_nodes_share_a_budget_as_far_as_they_heard(nodes: Nodes) -> None:
    async with nodes.start() as one, nodes.start() as two:
        assert one.spend(6) == 6
        await nodes.rounds([one, two])
        assert two.spend(100) == 4
        await nodes.rounds([two, one])
        assert (one.spend(100), two.spend(100)) == (0, 0)


async def test_what_is_too_much_is_what_one_round_let_through(nodes: Nodes, dsn: str) -> None:
    async with nodes.start() as one, nodes.start() as two:
        await nodes.rounds([one, two])
        assert (one.spend(8), two.spend(8)) == (8, 8), "neither knows of the other yet"
        await nodes.rounds([one, two], 2)
        assert (one.spend(100), two.spend(100)) == (0, 0)
    assert rows(dsn, SPENT) == [("one", "realtime.broadcast", 16)]


async def test_rounds_come_by_themselves(nodes: Nodes, dsn: str) -> None:
    async with nodes.start() as one, nodes.start() as two:
        assert one.spend(10) == 10
        async with asyncio.timeout(30):
            while two.spend(1):
                await nodes.clock.advance(EVERY_S)
                await asyncio.sleep(0.001)
                node_calls = rows(dsn, SPENT)
        assert node_calls


async def test_capabilities_without_a_budget_are_no_ones_business(nodes: Nodes, dsn: str) -> None:
    async with nodes.start(budget=None) as node:
        asked = node.database.asked
        node.spend(5, method=READ)
        node.spend(5)
        await nodes.rounds([node], 3)
        assert node.database.asked == asked, "a node without budgets asks nothing"
    assert rows(dsn, SPENT) == []


async def test_a_budget_that_comes_later_counts_the_whole_day(nodes: Nodes, tmp_path: Path) -> None:
    async with nodes.start(budget=None) as node:
        node.spend(6)
        node.grants(tmp_path, "one", 10)
        assert node.spend(1) == 1
    async with nodes.start() as node:
        assert node.spend(100) == 3


async def test_extensions_and_capabilities_have_budgets_of_their_own(nodes: Nodes, tmp_path: Path, dsn: str) -> None:
    async with nodes.start() as one, nodes.start() as two:
        for node in (one, two):
            node.grants(tmp_path, "other", 5)
        assert (one.spend(10), one.spend(100, of="other")) == (10, 5)
        await nodes.rounds([one, two])
        assert (two.spend(100), two.spend(100, of="other")) == (0, 0)
        one.gatekeeper.forget("other")  # uninstalled, as the registry does it
        execute(dsn, "delete from mag.extension_spent where extension_id = 'other'")
        await nodes.rounds([one, two])
        assert (one.spend(100), two.spend(100)) == (0, 0)
        assert (two.spend(3, of="other"), one.spend(100, of="other")) == (3, 5)


async def test_a_database_that_is_away_is_told_later(nodes: Nodes, dsn: str) -> None:
    async with nodes.start() as one, nodes.start() as two:
        session = one.database.session

        def away(**_: Any) -> Any:
            raise Unavailable("the database")

        one.database.session = away  # type: ignore[method-assign]
        assert one.spend(4) == 4
        with pytest.raises(Unavailable):
            await one.budgets.share()
        await one.budgets._try_to_share()
        assert one.spend(100) == 6, "its own count goes on"
        one.database.session = session  # type: ignore[method-assign]
        await nodes.rounds([one, two])
        assert two.spend(100) == 0


async def test_a_commit_that_nobody_heard_of_counts_twice_and_never_not_at_all(nodes: Nodes, dsn: str) -> None:
    async with nodes.start() as node:
        said = node.gatekeeper.said
        node.gatekeeper.said = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        assert node.spend(2) == 2
        with pytest.raises(ZeroDivisionError):
            await node.budgets.share()
        node.gatekeeper.said = said  # type: ignore[method-assign]
        await node.budgets.share()
        assert rows(dsn, SPENT) == [("one", "realtime.broadcast", 4)]
        assert node.spend(100) == 6


async def test_calls_during_a_round_are_of_the_next(nodes: Nodes, dsn: str) -> None:
    async with nodes.start() as node:
        session = node.database.session

        def meanwhile(**named: Any) -> Any:
            node.spend(2)
            return session(**named)

        assert node.spend(3) == 3
        node.database.session = meanwhile  # type: ignore[method-assign]
        await node.budgets.share()
        assert rows(dsn, SPENT) == [("one", "realtime.broadcast", 3)]
        node.database.session = session  # type: ignore[method-assign]
        assert node.spend(100) == 5
    assert rows(dsn, SPENT) == [("one", "realtime.broadcast", 10)]


async def test_old_days_go(nodes: Nodes, dsn: str) -> None:
    execute(dsn, f"insert into mag.extension_spent values ({DAY - 2}, 'one', 'x', 1), ({DAY - 1}, 'one', 'x', 2)")
    async with nodes.start() as node:
        assert node.spend(10) == 10
    assert rows(dsn, "select day from mag.extension_spent order by 1") == [(DAY - 1,), (DAY,)]


async def test_a_database_without_a_registry_is_no_trouble(nodes: Nodes, dsn: str) -> None:
    execute(dsn, "drop table mag.extension_spent")
    async with nodes.start() as node:
        assert node.spend(2) == 2


async def test_nodes_that_tell_much_at_once_do_not_wait_for_each_other(nodes: Nodes, dsn: str) -> None:
    """Rows are taken in one order, or two would each hold what the other wants."""
    made = [await nodes.begun() for _ in range(3)]
    there = {(f"e{number}", "realtime.broadcast"): 1 for number in range(3000)}
    back = dict(reversed(there.items()))
    for _ in range(3):
        await asyncio.gather(
            *(node.budgets._exchange(DAY, back if place % 2 else there) for place, node in enumerate(made))
        )
    assert {calls for _, _, calls in rows(dsn, SPENT)} == {9}


# ---------------------------------------------------------------- what operators read


async def shown(node: GateNode, of: str = "one") -> dict[str, LimitInfo]:
    async with node.database.session() as connection:
        grants, time_s = node.running[of].grants, node.clock.time_s()
        return {one.capability: one for one in await read_limits(connection, node.gatekeeper, of, grants, time_s)}


async def test_what_is_spent_is_read_over_all_nodes_at_most_a_round_late(nodes: Nodes) -> None:
    async with nodes.start() as one, nodes.start() as two:
        one.spend(4)
        assert (await shown(one))["realtime.broadcast"] == LimitInfo(
            "realtime.broadcast", 100_000, 0, "", 10, 4, "2024-10-05T00:00:00Z"
        )
        assert (await shown(two))["realtime.broadcast"].spent_today == 0, "not told yet"
        await nodes.rounds([one])
        assert (await shown(two))["realtime.broadcast"].spent_today == 4, "two did not hear of it, the database did"
        two.spend(6)
        await nodes.rounds([two])
        for node in (one, two):
            seen = (await shown(node))["realtime.broadcast"]
            assert (seen.spent_today, seen.limited) == (10, "budget")
        await nodes.clock.advance(DAY_S)
        for node in (one, two):
            seen = (await shown(node))["realtime.broadcast"]
            assert (seen.spent_today, seen.limited, seen.renews_at) == (0, "", "2024-10-06T00:00:00Z")


async def test_an_extension_that_runs_nowhere_is_shown_as_the_database_has_it(nodes: Nodes, dsn: str) -> None:
    async with nodes.start() as node:
        execute(dsn, f"insert into mag.extension_spent values ({DAY}, 'one', 'realtime.broadcast', 12)")
        execute(dsn, f"insert into mag.extension_spent values ({DAY}, 'other', 'realtime.broadcast', 99)")
        seen = (await shown(node))["realtime.broadcast"]
        assert (seen.spent_today, seen.limited) == (12, "budget"), "a budget that was lowered below what is spent"


async def test_what_was_kept_back_is_counted_on_the_node_that_did(nodes: Nodes, tmp_path: Path) -> None:
    async with nodes.start() as one, nodes.start() as two:
        one.spend(13)
        assert (await shown(one))["realtime.broadcast"].refused == 3
        assert (await shown(two))["realtime.broadcast"].refused == 0
        limited = {"database.read": grant("database.read", rate_per_minute=60)}
        one.running["one"].grants = limited
        with pytest.raises(RateLimited):
            one.spend(61, method=READ)
        assert await shown(one) == {"database.read": LimitInfo("database.read", 60, 1, "rate")}
        await nodes.clock.advance(1)
        assert await shown(one) == {"database.read": LimitInfo("database.read", 60, 1)}
        one.running["one"].grants = {}
        assert await shown(one) == {}
        one.gatekeeper.forget("one")
        one.running["one"].grants = limited
        assert await shown(one) == {"database.read": LimitInfo("database.read", 60)}


async def test_looking_takes_no_call_and_writes_nothing(nodes: Nodes, dsn: str) -> None:
    async with nodes.start() as node:
        for _ in range(20):
            await shown(node)
        assert node.spend(100) == 10
    assert rows(dsn, SPENT) == [("one", "realtime.broadcast", 10)]
