"""Case 39 of the hostile list: hooks that lead to hooks, one's own and in a circle, are refused at the fourth, by path.

The host's operation is a migration of which extensions are asked before it runs; `db.execute` of an extension runs one.
Workers are real processes, except where one has to lie about the call that it works in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from tests.integration.extensions.mediation import Mediation, installed, mediation, until
from tests.integration.extensions.played import Played

from magmobo.contracts.errors import HookUnavailable
from magmobo.contracts.hooks import MigrationContext
from magmobo.extensions.hooks.chain import MAX_DEPTH
from magmobo.extensions.installed import ApiMethod, Caller, Installed
from magx import wire

BEFORE, AFTER = "database.before_migration", "database.after_migration"
GUARD = f'''
@ext.hook("{BEFORE}")
async def guard(call):
    try:
        await ext.db.execute("select 1")
    except Exception as error:
        ext.log.warning(f"{{error.code}} {{error}}")
'''
WITNESS = f'''
@ext.hook("{AFTER}")
async def witness(call):
    await ext.db.execute("select 1")
'''
MIGRATION = MigrationContext(namespace="app", version="1", name="one", direction="up", sql="select 1")


class Execute(Struct, frozen=True):
    sql: str
    params: Sequence[Any] = ()


class Host:
    """Whoever runs migrations. `paths` are those of the callers, an empty one is the node's own."""

    def __init__(self, plane: Mediation) -> None:
        self.plane, self.done = plane, 0
        self.paths: list[tuple[str, ...]] = []
        plane.methods.append(ApiMethod("db.execute", "", Execute, self.execute))

    async def execute(self, caller: Caller, args: Execute) -> int:
        self.paths.append(caller.chain)
        return await self.operate()

    async def operate(self) -> int:
        before, after = self.plane.board.point(BEFORE), self.plane.board.point(AFTER)
        if before.chain is not None:
            await before.chain.before(MIGRATION)
        self.done += 1
        if after.chain is not None:
            after.chain.after(MIGRATION)
        return self.done


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with mediation(tmp_path) as plane:
        plane.be_patient()
        yield Host(plane)


async def test_a_hook_that_leads_to_itself_is_refused_with_the_path(host: Host, tmp_path: Path) -> None:
    await host.plane.running(installed(tmp_path, "loop", GUARD, hooks=[{"point": BEFORE}]))
    async with asyncio.timeout(60):
        await host.operate()
    own = f"loop/{BEFORE}"
    assert host.paths == [(own,) * depth for depth in range(1, MAX_DEPTH + 1)]
    assert host.done == MAX_DEPTH, "the innermost of five was not done"
    ((_, message),) = [line for line in host.plane.logs if "MAG-EXT-150" in line[1]]
    assert " -> ".join([own] * MAX_DEPTH) in message


async def test_a_circle_of_two_is_refused_with_the_path(host: Host, tmp_path: Path) -> None:
    for name in ("first", "second"):
        hooks = [{"point": BEFORE, "priority": 60 if name == "first" else 40}]
        await host.plane.running(installed(tmp_path, name, GUARD, hooks=hooks))
    async with asyncio.timeout(60):
        await host.operate()
    assert max(map(len, host.paths)) == MAX_DEPTH
    messages = [message for _, message in host.plane.logs if "MAG-EXT-150" in message]
    assert any(f"first/{BEFORE} -> second/{BEFORE}" in message for message in messages)
    assert len(host.paths) <= 2**MAX_DEPTH * 2


async def test_what_is_told_afterwards_ends_too(host: Host, tmp_path: Path) -> None:
    await host.plane.running(installed(tmp_path, "teller", WITNESS, hooks=[{"point": AFTER}]))
    await host.operate()
    await until(lambda: host.done == 1 + MAX_DEPTH)
    await asyncio.sleep(0.1)  # nothing else is to happen
    assert host.done == 1 + MAX_DEPTH
    assert max(map(len, host.paths)) == MAX_DEPTH


async def lying(host: Host, folder: Path, point: str) -> Played:
    """An extension that says of its calls what it likes."""
    extension = installed(folder, "liar", "", hooks=[{"point": point}])

    async def spawn(_: Installed) -> Played:
        return Played()

    worker = host.plane.worker(extension, spawn=spawn)
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(host.plane.processes))
    peer: Played = host.plane.processes[0]
    await peer.greet(f"hook:{point}")
    await starting
    host.plane.router.attach(worker)
    return peer


def asks(number: int, call_id: int) -> wire.Api:
    return wire.Api(number, call_id, "db.execute", wire.raw({"sql": ""}))


@pytest.mark.parametrize("named", ["another of its calls", "none", "one that does not exist"])
async def test_lying_about_the_call_does_not_make_the_path_shorter(host: Host, tmp_path: Path, named: str) -> None:
    peer = await lying(host, tmp_path, BEFORE)
    operating = asyncio.create_task(host.operate())
    first = (await peer.next(wire.Call)).id
    lie = {"another of its calls": first, "none": 0, "one that does not exist": 99}[named]
    for number in range(1, MAX_DEPTH):
        await peer.send(asks(number, lie))
        await peer.next(wire.Call)
    await peer.send(asks(MAX_DEPTH, lie))
    refusal = await peer.next(wire.Refuse)
    assert (refusal.id, refusal.code) == (MAX_DEPTH, "MAG-EXT-150")
    assert [len(path) for path in host.paths] == [1, 2, 3, 4]
    peer.kill()
    with pytest.raises(HookUnavailable):
        await operating


async def test_lying_in_what_it_was_told_afterwards_does_not_either(host: Host, tmp_path: Path) -> None:
    peer = await lying(host, tmp_path, AFTER)
    await host.operate()
    first = (await peer.next(wire.Call)).id
    for number in range(1, MAX_DEPTH + 1):
        await peer.send(asks(number, first))
        await peer.next(wire.Reply)
        if number < MAX_DEPTH:
            await peer.next(wire.Call)
    assert [len(path) for path in host.paths] == [1, 2, 3, 4]


async def test_a_deep_path_of_one_request_does_not_count_for_another(host: Host, tmp_path: Path) -> None:
    peer = await lying(host, tmp_path, BEFORE)
    operating = [asyncio.create_task(host.operate())]
    for number in range(1, MAX_DEPTH):
        await peer.send(asks(number, (await peer.next(wire.Call)).id))
    await peer.next(wire.Call)
    operating.append(asyncio.create_task(host.operate()))
    other = (await peer.next(wire.Call)).id
    await peer.send(asks(MAX_DEPTH, other))
    await peer.next(wire.Call)
    assert [len(path) for path in host.paths] == [1, 2, 3, 1]
    peer.kill()
    results = await asyncio.gather(*operating, return_exceptions=True)
    assert all(isinstance(result, HookUnavailable) for result in results)


async def test_calls_of_different_requests_do_not_count_for_each_other(host: Host, tmp_path: Path) -> None:
    await host.plane.running(installed(tmp_path, "busy", GUARD, hooks=[{"point": BEFORE}]))
    async with asyncio.timeout(60):
        await asyncio.gather(*(host.operate() for _ in range(8)))
    assert host.done == 8 * MAX_DEPTH
