"""Reloads of a real node under load: nobody sees two versions at once, and nobody but who is made anew is away."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.crash.support import Writer
from tests.system.load import CONFIG, Listeners, Readers, until
from tests.system.settings_node import READER, UNWATCHED, Operator, node_with, say, variables

from magmobo.admin.errors import NodeRefused
from magmobo.testing.node import NodeProcess, running_node

pytestmark = pytest.mark.usefixtures("_without_extensions")
RELOADS, CLIENTS, TURNS = 200, 60, 12
TABLES = CONFIG.replace('"reader"', f'"{READER}"')
PARTS = ("left", "right", "anew")


class Visitor:
    """Asks one path of the public port for ever over kept connections; `answers` are what it was told."""

    def __init__(self, port: int, path: str, answers: list[tuple[int, Any]]) -> None:
        self._port, self._path, self._answers = port, path, answers

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        request = f"GET {self._path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
        try:
            while True:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(headers["content-length"]))
                status = int(head.split()[1])
                self._answers.append((status, json.loads(body) if status == 200 else None))
                await asyncio.sleep(0.001)  # the node is asked all the time, and reloads also get on
                if headers.get("connection") == "close":
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        finally:
            writer.close()


@asynccontextmanager
async def at_work(*work: Any) -> AsyncIterator[None]:
    """Beside the block; what fails there fails the test."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def port_of(node: NodeProcess) -> int:
    return int(node.base_url.rpartition(":")[2])


@pytest.mark.usefixtures("_without_database")
async def test_two_hundred_reloads_never_show_two_versions_at_once(data_dir: Path) -> None:
    """Among them some that a component refuses, and some with which another does not come up."""
    versions = "".join(f"[{part}]\nversion = {{0}}\n" for part in PARTS)
    say(data_dir, UNWATCHED + versions.format(0))
    asked: list[tuple[int, Any]] = []
    shown, told = list[dict[str, int]](), list[dict[str, int]]()
    operator, other = Operator(data_dir), Operator(data_dir)

    async def show() -> None:
        while True:
            tree = await other.ask("config:show")
            shown.append({e["key"]: e["value"] for e in tree["entries"] if e["key"] in {f"{p}.version" for p in PARTS}})
            await asyncio.sleep(0.01)

    async def tell() -> None:
        while True:
            told.append((await other.ask("probe:versions"))["serving"])
            await asyncio.sleep(0.002)

    async with node_with(data_dir, "listener", "Left", "Right", "Anew", "Probe") as node:
        visitor = Visitor(port_of(node), "/versions/", asked)
        results: Counter[str] = Counter()
        async with at_work(visitor.run(), show(), tell()):
            good, durations_s = 0, list[float]()
            for number in range(1, RELOADS + 1):
                say(data_dir, UNWATCHED + versions.format(number))
                try:
                    durations_s.append((await operator.ask("config:reload"))["duration_s"])
                    good = number
                    results["applied"] += 1
                except NodeRefused as error:
                    results[error.fault_code] += 1
                assert (await operator.ask("probe:versions"))["serving"] == dict.fromkeys(PARTS, good)
            everybody = (asked, told, shown)
            so_far = [len(one) for one in everybody]
            await until(lambda: all(len(one) > then for one, then in zip(everybody, so_far, strict=True)))
        refused, taken_back = RELOADS // 10, RELOADS // 10
        assert results == {
            "applied": RELOADS - refused - taken_back,
            "MAG-CONF-003": refused,
            "MAG-CONF-030": taken_back,
        }
        assert {status for status, _ in asked} == {200}
        for serving in (*(body for _, body in asked), *told, *shown):
            assert len(set(serving.values())) <= 1, f"two versions at once: {serving}"
            assert len(serving) == len(PARTS) or set(serving) == {"left", "right"}, serving
        distinct = len({serving["left"] for _, serving in asked})
        counted = f"{results}, median {sorted(durations_s)[len(durations_s) // 2] * 1000:.1f} ms"
        print(f"\n{counted}, asked {len(asked)} times over REST ({distinct} versions), {len(told)} by command")
        status = await operator.ask("kernel:status")
        assert {one["name"] for one in status["components"] if one["restarts"]} == {"anew"}


async def test_who_is_made_anew_is_away_and_nobody_else(data_dir: Path, events_dsn: str) -> None:
    settings = f"{TABLES}\n{UNWATCHED}[door]\nversion = {{}}\n"
    say(data_dir, settings.format(0))
    operator = Operator(data_dir)
    doors: list[tuple[int, Any]] = []
    environment = variables("listener", "magds", "maggate", "magws", "Door")
    async with running_node(data_dir, events_dsn, environment=environment) as node:
        listeners, readers = Listeners(node.status.urls["realtime"], CLIENTS), Readers(port_of(node))
        writer = Writer(events_dsn, 7)
        try:
            await listeners.open()
            writer.start()
            async with at_work(Visitor(port_of(node), "/door/", doors).run()):
                for number in range(1, TURNS + 1):
                    say(data_dir, settings.format(number))
                    outcome = await operator.ask("config:reload")
                    assert (outcome["plan"]["restarts"], outcome["plan"]["live"]) == (["door"], [])
                    so_far = readers.answers["200"]
                    await until(lambda so_far=so_far: readers.answers["200"] > so_far + 20)  # type: ignore[misc]
                    await until(lambda number=number: (200, {"version": number}) in doors)  # type: ignore[misc]
            assert set(readers.answers) == {"200"}
            assert listeners.drops == 0
            assert {status for status, _ in doors} <= {200, 404, 503}, "its own clients may find nobody, and no more"
            answered = [body["version"] for status, body in doors if status == 200]
            assert answered == sorted(answered)
            committed = await asyncio.to_thread(writer.end)
            await until(lambda: all(seen and seen[-1] >= committed[-1] for seen in listeners.seen))
            assert all(seen == sorted(set(seen)) and set(committed) <= set(seen) for seen in listeners.seen)
            assert listeners.gaps == 0
            print(f"\n{readers.answers}, door {Counter(status for status, _ in doors)}, {len(committed)} rows")
        finally:
            writer.end()
            await readers.close()
            await listeners.close()
