"""A thousand bad configurations, one after the other, in the file that a node under load watches.

None may take effect, none may cost a request or a connection, and after each the watcher must still be there: what it
says of the next one proves it.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from tests.crash.support import Writer
from tests.system.load import CONFIG, SET_UP, Listeners, Readers, dsn_of, until

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.testing.node import NodeProcess, running_node

CLIENTS = 50
TEMPLATE = f"""\
# What this node runs with.
[kernel]
watch_interval_s = 0.02
{CONFIG}
port = PORT

[magds]
statement_timeout_s = 9.5

[health]
interval_s = 5

[cache]
memory_bytes = 1048576

[logging]
level = "info"
"""
WRONG = {
    "kernel.watch_interval_s": "true", "kernel.stop_timeout_s": '"soon"', "kernel.environment": '"Not A Name"',
    "kernel.components": "{}", "magds.statement_timeout_s": "-1", "magds.pool_size": '"many"', "magds.dsn": "7",
    "magds.multiplexer_depth": "65", "health.interval_s": "[]", "health.failures": "0", "cache.memory_bytes": "-1",
    "logging.level": '"loud"', "logging.format": "1", "listener.port": "70000", "listener.host": "false",
    "listener.max_head_bytes": "1.5", "maggate.schemas": "[]", "maggate.max_rows": '"1"', "magws.apps": "{}",
    "magws.max_channels": "0", "recovery.jitter": "2", "recovery.restarts": "1e3", "admin.token_sha256": '"short"',
    "security.redact_emails": '"no"', "vault.driver": '"cupboard"', "observability.events_kept": "-5",
}  # fmt: skip
"""Keys, each with a value that it does not take."""


class Case(NamedTuple):
    """One bad configuration: `place` puts it where the file is."""

    name: str
    place: Callable[[Path], None]


def written(content: bytes) -> Callable[[Path], None]:
    """As an editor does it: another file, moved into the place of the old one."""

    def place(file: Path) -> None:
        fresh = file.with_name("fresh")
        fresh.write_bytes(content)
        fresh.replace(file)

    return place


def made_of(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else in the place of the file."""

    def place(file: Path) -> None:
        fresh = file.with_name("fresh")
        make(fresh)
        if file.is_dir() or fresh.is_dir():
            file.unlink()
        fresh.rename(file)

    return place


def with_key(good: str, key: str, value: str) -> bytes:
    """The good file with one key more, or another value for one that it has."""
    section, _, name = key.partition(".")
    lines, head = [], ""
    for line in good.splitlines():
        head = line if line.startswith("[") else head
        if not (head == f"[{section}]" and line.split(" =")[0] == name):
            lines.append(line)
    at = lines.index(f"[{section}]") + 1 if f"[{section}]" in lines else len(lines)
    return "\n".join(
        [*lines[:at], *([] if at < len(lines) else [f"[{section}]"]), f"{name} = {value}", *lines[at:]]
    ).encode()


def cases(text: str, taken_port: int) -> Iterator[Case]:
    good = text.encode()
    for size in range(len(good) - 1):
        yield Case(f"cut off after {size} bytes", written(good[:size]))
    for at in range(len(good)):
        yield Case(f"not UTF-8 at byte {at}", written(good[:at] + b"\xff" + good[at + 1 :]))
        yield Case(f"a NUL before byte {at}", written(good[:at] + b"\0" + good[at:]))
    for key, value in WRONG.items():
        yield Case(f"{key} = {value}", written(with_key(text, key, value)))
        yield Case(f"{key} misspelt", written(with_key(text, f"{key}x", value)))
    keys = re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE)
    for name, value in keys:
        line = f"{name} = {value}"
        yield Case(f"{name} twice", written(text.replace(line, f"{line}\n{line}", 1).encode()))
    for section in re.findall(r"^(\[\w+\])$", text, re.MULTILINE):
        yield Case(f"{section} twice", written(good + f"\n{section}\n".encode()))
        yield Case(f"{section} misspelt", written(text.replace(section, f"{section[:-1]}z]", 1).encode()))
    yield Case("gone", lambda file: file.unlink())
    yield Case("a folder", made_of(lambda path: path.mkdir()))
    yield Case("a pipe", made_of(os.mkfifo))
    yield Case("a link to nothing", made_of(lambda path: path.symlink_to("nowhere")))
    yield Case("a link to itself", made_of(lambda path: path.symlink_to("mag.toml")))
    yield Case("a device", made_of(lambda path: path.symlink_to("/dev/zero")))
    yield Case("too large", written(good + b"#" * 1_100_000))
    yield Case("another database", written(with_key(text, "magds.dsn", '"postgres://app:hunter2@127.0.0.1:1/nowhere"')))
    yield Case("no database", written(with_key(text, "magds.dsn", '"postgres://127.0.0.1:99999999/x"')))
    yield Case("a taken port", written(with_key(text, "listener.port", str(taken_port))))
    yield Case("a secret that is nowhere", written(with_key(text, "maggate.jwt", '{ secret = "vault:nothing" }')))
    yield Case("a file that is nowhere", written(with_key(text, "maggate.jwt", '{ secret = "file:/nowhere/key" }')))


@pytest.fixture
def good() -> str:
    """The settings that count all the time; the port is one that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return TEMPLATE.replace("PORT", str(free.getsockname()[1]))


class Operator:
    """What somebody at the command line sees of the node's settings."""

    def __init__(self, node: NodeProcess) -> None:
        self._client = AdminClient(DataFolder(node.data_dir), timeout_s=30)
        self._cursor = 0

    async def ask(self, command: str, **params: Any) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.ask, command, params, wait_s=10)

    async def version(self) -> int:
        tree = await self.ask("config:show", prefix="magds.statement_timeout_s")
        assert [entry["value"] for entry in tree["entries"]] == [9.5]
        return int(tree["version"])

    async def next_event(self, case: str) -> dict[str, Any]:
        """The next event about settings."""
        page = await self.ask("kernel:events", after=self._cursor, limit=1, pattern="config.**", wait_s=10)
        assert page["events"], f"the watcher said nothing of: {case}"
        self._cursor = page["cursor"]
        event: dict[str, Any] = page["events"][0]
        return event


async def test_a_thousand_bad_configurations(data_dir: Path, good: str) -> None:
    file = data_dir.parent / "mag.toml"
    file.write_text(good, encoding="utf-8")
    async with running_node(data_dir, "--without", "maggate,magws"):
        dsn = await asyncio.to_thread(dsn_of, data_dir)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(SET_UP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = list(cases(good, taken.getsockname()[1]))
        assert len(bad) >= 1000
        async with running_node(data_dir, port=None) as node:
            dsn = await asyncio.to_thread(dsn_of, data_dir)
            listeners = Listeners(node.status.urls["realtime"], CLIENTS)
            readers, writer = Readers(int(node.base_url.rpartition(":")[2])), Writer(dsn, 7)
            operator = Operator(node)
            try:
                await listeners.open()
                writer.start()
                version = await operator.version()
                for case in bad:
                    case.place(file)
                    event = await operator.next_event(case.name)
                    assert event["type"].endswith("config.reload_failed.v1"), (case.name, event)
                    assert "hunter2" not in str(event), case.name
                    assert await operator.version() == version, case.name
                    if file.is_dir():
                        file.rmdir()
                    written(good.encode())(file)
                written(good.replace("9.5", "9.25").encode())(file)
                event = await operator.next_event("a good one")
                assert event["data"]["changed_keys"] == ["magds.statement_timeout_s"]
                committed = await asyncio.to_thread(writer.end)
                await until(lambda: all(seen and seen[-1] >= committed[-1] for seen in listeners.seen))
                assert set(readers.answers) == {"200"}
                assert (listeners.drops, listeners.gaps) == (0, 0)
                assert all(set(committed) <= set(seen) for seen in listeners.seen)
            finally:
                writer.end()
                await readers.close()
                await listeners.close()
