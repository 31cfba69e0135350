"""What a service manager hears: over a real datagram socket, from the notifier alone and from a whole node."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.node.harness import DEADLINE_S, heard, manager, up

from magmobo.node.notify import Notifier


def empty(door: socket.socket) -> None:
    with suppress(BlockingIOError):
        while door.recv(64):
            pass


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_news_arrive_and_the_variables_are_gone(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "notify.sock") if kind == "path" else f"@mag-test-{os.getpid()}-{time.monotonic_ns()}"
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/x"}
    with manager(address) as door:
        notifier = Notifier.from_environment(environ)
        assert environ == {"HOME": "/x"}
        assert notifier.watchdog_interval_s == 1.5
        notifier.ready()
        notifier.reloading()
        notifier.status("two\nlines \udc80")
        notifier.ping()
        notifier.stopping()
        assert heard(door) == "READY=1"
        first, second = heard(door).split("\n")
        assert first == "RELOADING=1"
        assert 0 <= time.monotonic_ns() // 1_000 - int(second.removeprefix("MONOTONIC_USEC=")) < 60_000_000
        assert [heard(door) for _ in range(3)] == ["STATUS=two lines ?", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2000000"}, None),  # nobody to ping
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000"}, 1.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),  # meant for another
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "-1"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "9" * 5000}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "²"}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "2000000"}, None),
        ({"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "2000000"}, None),
    ],
)
def test_what_makes_no_sense_counts_as_absent(environ: dict[str, str], interval_s: float | None) -> None:
    notifier = Notifier.from_environment(environ)
    assert notifier.watchdog_interval_s == interval_s
    assert environ == {}
    notifier.ready()


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "/" + "x" * 200, "@nobody-listens-here"])
def test_a_manager_that_is_gone_stops_nothing(address: str) -> None:
    notifier = Notifier(address)
    notifier.ready()
    notifier.stopping()


def test_a_manager_that_does_not_read_stops_nothing(tmp_path: Path) -> None:
    address = str(tmp_path / "deaf.sock")
    with manager(address):
        notifier = Notifier(address)
        for _ in range(2_000):  # far more than a queue of datagrams holds
            notifier.ping()


async def test_pings_come_from_a_loop_that_turns(tmp_path: Path) -> None:
    address = str(tmp_path / "notify.sock")
    with manager(address) as door:
        door.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE_S), Notifier(address, watchdog_interval_s=0.01).pinging():
            for _ in range(3):
                assert await loop.sock_recv(door, 64) == b"WATCHDOG=1"
            await asyncio.sleep(0)
            empty(door)
            time.sleep(0.05)  # the loop hangs
            with pytest.raises(BlockingIOError):
                door.recv(64)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "node:watchdog"]


async def test_without_a_watchdog_nobody_pings() -> None:
    before = asyncio.all_tasks()
    async with Notifier().pinging():
        assert asyncio.all_tasks() == before


def test_a_node_tells_its_manager_and_hides_it_from_its_children(tmp_path: Path) -> None:
    address = str(tmp_path / "notify.sock")
    with manager(address) as door:
        variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        with up("--data-dir", "data", cwd=tmp_path, components="Environ", **variables) as node:
            news = [heard(door)]
            while news[-1] != "READY=1":
                news.append(heard(door))
            assert news[0] == f"STATUS=booting, data folder {tmp_path / 'data'}"
            assert [one for one in news if one != "WATCHDOG=1"][1:] == [
                f"STATUS=serving, data folder {tmp_path / 'data'}",
                "READY=1",
            ]
            node.ready()
            while heard(door) != "WATCHDOG=1":
                pass
            assert heard(door) == "WATCHDOG=1"
            node.process.terminate()
            assert "STOPPING=1" in iter(lambda: heard(door), "never")
            code, _, _ = node.end()
            assert code == 0
        seen = (tmp_path / "data" / "child_environ").read_text()
        assert "HOME=" in seen or "PATH=" in seen
        assert "NOTIFY_SOCKET" not in seen
        assert "WATCHDOG" not in seen
