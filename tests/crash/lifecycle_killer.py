"""`python lifecycle_killer.py SOCKET_DIR FOLDER CHANGE`: a change of an extension, killed behind each of its steps.

Every step is a commit of the database, files that are written or removed, or a worker that starts or ends; between two
of them nothing lasting happens. After each kill a new node starts, and what is there must be what was there before the
change, or what is there after it. Prints one JSON object, or fails with what is wrong.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cryptography.hazmat.primitives.asymmetric.ed25519
import psycopg
from msgspec import json
from tests.integration.extensions.lifecycle_parts import (
    ADMIN,
    READ,
    SCHEMA,
    TABLES,
    UP1,
    UP2,
    Node,
    World,
    execute,
    node_at,
    package,
    traces,
)

from magmobo.extensions.lifecycle import core, removals
from magmobo.testing.postgres import PostgresServer

assert cryptography  # imported before the forks, not by each
CAPABILITIES = [SCHEMA, READ]
Step = Callable[[str], None]
Change = Callable[[Node, Path], Awaitable[Any]]


def first(place: Path) -> bytes:
    return package(place / "p", files=UP1, capabilities=CAPABILITIES)


def second(place: Path, *, more: bool = False) -> bytes:
    read = READ | {"tables": ["public.orders", "public.prices"]} if more else READ
    return package(place / "p", "1.1.0", files=UP2, capabilities=[SCHEMA, read])


async def _nothing(node: Node, place: Path) -> None:
    await node.trusted()


async def _installed(node: Node, place: Path) -> None:
    await node.trusted()
    await node.lifecycle.install(first(place), ADMIN)
    await node.lifecycle.approve("demo", (), "", ADMIN)


async def _enabled(node: Node, place: Path) -> None:
    await (await node.trusted()).enabled(first(place))


async def _upgraded(node: Node, place: Path) -> None:
    await _enabled(node, place)
    await node.lifecycle.upgrade(second(place), ADMIN)


async def _pending(node: Node, place: Path) -> None:
    await _enabled(node, place)
    await node.lifecycle.upgrade(second(place, more=True), ADMIN)


async def _disabled(node: Node, place: Path) -> None:
    await _enabled(node, place)
    await node.lifecycle.disable("demo", ADMIN)


CHANGES: dict[str, tuple[Change, Change]] = {
    "install": (_nothing, lambda node, place: node.lifecycle.install(first(place), ADMIN)),
    "enable": (_installed, lambda node, _: node.lifecycle.enable("demo", ADMIN)),
    "upgrade": (_enabled, lambda node, place: node.lifecycle.upgrade(second(place), ADMIN)),
    "approve": (_pending, lambda node, _: node.lifecycle.approve("demo", (), "", ADMIN)),
    "rollback": (_upgraded, lambda node, _: node.lifecycle.rollback("demo", ADMIN)),
    "disable": (_enabled, lambda node, _: node.lifecycle.disable("demo", ADMIN)),
    "kill": (_enabled, lambda node, _: node.lifecycle.kill("demo", False, ADMIN)),
    "uninstall": (_disabled, lambda node, _: node.lifecycle.uninstall("demo", True, ADMIN)),
    "uninstall and keep": (_disabled, lambda node, _: node.lifecycle.uninstall("demo", False, ADMIN)),
}


def tell_steps(step: Step) -> World:
    """Have `step` called behind everything that lasts; the world of workers that tell too."""
    leave = psycopg.AsyncTransaction.__aexit__

    async def left(self: Any, *error: Any) -> Any:
        done = await leave(self, *error)
        if self.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE and error[0] is None:
            step("commit")
        return done

    psycopg.AsyncTransaction.__aexit__ = left  # type: ignore[method-assign]
    for module, name in ((core, "unpack"), (shutil, "rmtree"), (removals, "remove_tree")):
        setattr(module, name, _told(getattr(module, name), name, step))
    world = World()
    world.on_step = lambda name, _: step(name)
    return world


def _told(work: Callable[..., Any], name: str, step: Step) -> Callable[..., Any]:
    def told(*arguments: Any, **named: Any) -> Any:
        done = work(*arguments, **named)
        step(name)
        return done

    return told


async def prepare(dsn: str, place: Path, before: Change) -> None:
    async with node_at(dsn, place / "node") as node:
        await before(node, place)


async def change(dsn: str, place: Path, what: Change, step: Step) -> None:
    """The steps of the start before are not of the change."""
    quiet = True
    world = tell_steps(lambda name: None if quiet else step(name))
    async with node_at(dsn, place / "node", world=world) as node:
        quiet = False
        await what(node, place)
        quiet = True


def look(dsn: str, place: Path) -> dict[str, Any]:
    """What is there once a new node has started, has looked around, and stopped."""

    async def start() -> None:
        async with node_at(dsn, place / "node") as node:
            await node.lifecycle._following.look()
            await node.lifecycle._core.removals.settled()
            for entry in (await node.lifecycle.list()).extensions:
                assert (node.in_place(entry.id) is not None) == (entry.state == "enabled"), entry

    asyncio.run(start())
    return traces(dsn, place / "node")


def one(server: PostgresServer, place: Path, name: str, kill_behind: int) -> tuple[dict[str, Any], list[str]]:
    """What is there after the change was killed behind this step (0: it was not), and the steps it took."""
    place.mkdir(parents=True)
    before, what = CHANGES[name]
    reading, writing = os.pipe()
    with server.database() as dsn:
        execute(dsn, TABLES)
        asyncio.run(prepare(dsn, place, before))
        child = os.fork()
        if child == 0:
            os.close(reading)
            count = 0

            def step(step_name: str) -> None:
                nonlocal count
                count += 1
                os.write(writing, f"{step_name}\n".encode())
                if count == kill_behind:
                    os.kill(os.getpid(), signal.SIGKILL)

            try:
                asyncio.run(change(dsn, place, what, step))
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
                os._exit(1)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            steps = pipe.read().split()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed if kill_behind else status == 0, (name, kill_behind, steps, status)
        return look(dsn, place), steps


def comparable(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Without what differs for good reasons: names of roles hold the number of the database; migrations of one that is
    approved run once, whether it came up or not; what an operator decided before the kill stays decided; files of a
    version that is there may be unpacked or not, and its worker may have kept some.
    """
    beside = {"enable": ["columns"], "approve": ["grants"]}.get(name, [])
    seen = {key: value for key, value in found.items() if key not in beside}
    known = {sha256 for sha256, _ in seen["versions"]}
    files = [one for one in seen["files"] if one not in known]
    kept = [one for one in seen["data"] if one not in {extension[0] for extension in seen["extensions"]}]
    return {**seen, "roles": len(seen["roles"]), "files": files, "data": kept}


def main(socket_dir: Path, folder: Path, name: str) -> None:
    server = PostgresServer(socket_dir, 0)
    with server.database() as dsn:
        execute(dsn, TABLES)
        asyncio.run(prepare(dsn, folder / "before", CHANGES[name][0]))
        before = comparable(look(dsn, folder / "before"), name)
    found, steps = one(server, folder / "whole", name, 0)
    after = comparable(found, name)
    ways = []
    for number, step in enumerate(steps, 1):
        found, _ = one(server, folder / str(number), name, number)
        seen = comparable(found, name)
        assert seen in (before, after), (
            name,
            number,
            step,
            {key: (before[key], seen[key], after[key]) for key in seen},
        )
        ways.append("before" if seen == before else "after")
    print(json.encode({"steps": steps, "ways": ways}).decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
