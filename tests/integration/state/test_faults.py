"""The state store when the machine does not play along: no room, no right to write, somebody else's lock."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from magmobo.contracts.errors import StateUnavailable
from magmobo.contracts.stores import StateEntry
from magmobo.kernel.state import database
from magmobo.kernel.state.errors import StateTooNew
from magmobo.kernel.state.manager import StateManager
from magmobo.kernel.state.offline import read_offline

# A file may grow to a limit and no further, as on a full disk; the system says so to root as to anybody. Writes that
# fail are tried in every way, then the limit goes.
NO_ROOM = """
import asyncio, resource, sys
from pathlib import Path
from magmobo.contracts.errors import StateUnavailable
from magmobo.kernel.state.manager import StateManager

def limit(size_bytes):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))

async def main():
    path = Path(sys.argv[1])
    manager = StateManager(path)
    await manager.open()
    state = manager.scope("a")
    heard = []
    state.watch("", lambda entry, key: heard.append(key))
    await state.put("before", 1)
    limit(path.with_name("state.db-wal").stat().st_size + 3 * 4_096 + 100)
    failed = 0
    for value in ("x" * 200_000, "y" * 9_000, "z"):
        large = state.put("large", "x" * 50_000)
        for call in (state.put("before", value), state.put_all({"a": value, "b": value}), large):
            try:
                await call
            except StateUnavailable as error:
                failed += 1
    together = await asyncio.gather(state.put("small", 1), state.put("big", "x" * 500_000), return_exceptions=True)
    assert isinstance(together[1], StateUnavailable)
    assert failed >= 6, failed
    entries = {entry.key: entry.value for entry in await state.entries()}
    assert ("a" in entries) == ("b" in entries)
    assert "large" not in entries and "big" not in entries
    assert "large" not in heard and set(heard) == set(entries)
    limit(resource.RLIM_INFINITY)
    for number in range(20):
        await state.put("after", "w" * 30_000)
    await state.put("before", 2)
    await manager.close()
    again = StateManager(path)
    await again.open()
    assert not again.problems, again.problems
    found = {entry.key: entry.value for entry in await again.scope("a").entries()}
    assert found == entries | {"before": 2, "after": "w" * 30_000}, (found.keys(), entries.keys())
    await again.close()
    print("ok", failed)

asyncio.run(main())
"""

NO_ROOM_AT_ALL = """
import asyncio, resource, sys
from pathlib import Path
from magmobo.contracts.errors import StateUnavailable
from magmobo.kernel.state.manager import StateManager

async def main():
    path = Path(sys.argv[1])
    for size_bytes in (0, 5_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))
        try:
            await StateManager(path).open()
        except StateUnavailable:
            assert not path.exists(), "half made"
        else:
            raise AssertionError("opened without room")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    manager = StateManager(path)
    await manager.open()
    assert not manager.problems
    await manager.scope("a").put("k", 1)
    await manager.close()
    print("ok")

asyncio.run(main())
"""

READ_ONLY = """
import asyncio, os, sqlite3, sys
from pathlib import Path
from magmobo.contracts.errors import StateUnavailable
from magmobo.kernel.state.manager import StateManager

async def main():
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    manager = StateManager(Path(sys.argv[1]))
    try:
        await manager.open()
    except StateUnavailable as error:
        print(error.code, error)

asyncio.run(main())
"""


def run(script: str, path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_room_a_write_fails_whole_and_works_again_with_room(path: Path) -> None:
    assert run(NO_ROOM, path).startswith("ok")


def test_without_room_no_file_is_begun(path: Path) -> None:
    assert run(NO_ROOM_AT_ALL, path) == "ok"


async def test_a_file_that_may_only_be_read_is_refused_as_it_is(manager: StateManager, path: Path) -> None:
    await manager.scope("a").put("k", 1)
    with tempfile.TemporaryDirectory() as open_to_all:
        target = Path(open_to_all) / "state.db"
        await manager.snapshot(target)
        target.chmod(0o444)
        for mode in (0o555, 0o777):
            Path(open_to_all).chmod(mode)
            before = target.read_bytes()
            assert run(READ_ONLY, target) == "MAG-STATE-001 the state store is not available: Permission denied"
            assert target.read_bytes() == before
            assert [file.name for file in Path(open_to_all).iterdir()] == ["state.db"]


async def test_a_folder_in_its_place_is_refused_as_it_is(path: Path) -> None:
    path.mkdir()
    (path / "precious").touch()
    with pytest.raises(StateUnavailable, match="Is a directory"):
        await StateManager(path).open()
    assert (path / "precious").exists()


async def test_a_missing_folder_is_refused(path: Path) -> None:
    with pytest.raises(StateUnavailable, match="No such file"):
        await StateManager(path.parent / "missing" / "state.db").open()


async def test_a_later_layout_is_refused_as_it_is(path: Path) -> None:
    manager = StateManager(path)
    await manager.open()
    await manager.close()
    connection = sqlite3.connect(path)
    connection.execute("pragma user_version = 2")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StateTooNew) as refusal:
        await StateManager(path).open()
    assert (refusal.value.found, refusal.value.known) == (2, 1)
    with pytest.raises(StateTooNew):
        read_offline(path, "a", "k")
    assert path.read_bytes() == before


async def test_somebody_elses_lock_is_waited_for_and_then_named(
    manager: StateManager, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_S", 0.05)
    hasty = StateManager(path)
    await hasty.open()
    state = hasty.scope("a")
    await state.put("k", 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(StateUnavailable, match="another process holds"):
        await state.put("k", 2)
    assert await state.get("k") == StateEntry("k", 1, 1), "reading needs no lock"
    patient = asyncio.ensure_future(manager.scope("a").put("k", 3))
    await state.get("k")
    other.execute("rollback")
    assert (await patient).version == 2
    other.close()
    await hasty.close()


async def test_a_store_opens_once_and_not_before_it_is_asked(path: Path) -> None:
    manager = StateManager(path)
    with pytest.raises(StateUnavailable):
        await manager.scope("a").get("k")
    with pytest.raises(StateUnavailable):
        await manager.scope("a").put("k", 1)
    await manager.close()
    await manager.open()
    with pytest.raises(RuntimeError):
        await manager.open()
    with pytest.raises(ValueError, match="somebody"):
        manager.scope("")
    await manager.close()


async def test_a_start_that_is_cancelled_leaves_nothing_open(path: Path) -> None:
    for turns in range(12):
        manager = StateManager(path)
        opening = asyncio.ensure_future(manager.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        await manager.close()
        assert not path.with_name("state.db-wal").exists()
    manager = StateManager(path)
    await manager.open()
    assert not manager.problems
    await manager.close()
