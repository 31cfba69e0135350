"""The state store on a real file: what it promises while all is well, and how it can be read from outside."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from magmobo.contracts.errors import StateUnavailable, StateValueRefused, VersionConflict
from magmobo.contracts.stores import StateEntry
from magmobo.kernel.state import manager as manager_module
from magmobo.kernel.state.database import Database
from magmobo.kernel.state.manager import StateManager
from magmobo.kernel.state.offline import read_offline


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def footprint() -> tuple[int, int]:
    """Threads of stores that do not end, and open files."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("mag-state")]
    for thread in threads:
        thread.join(5)
    return sum(thread.is_alive() for thread in threads), sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_removed_key_does_not_come_back_with_an_old_version(manager: StateManager) -> None:
    state = manager.scope("a")
    old = await state.put("leader", "node-1")
    await state.put("leader", "node-1")
    await state.delete("leader")
    new = await state.put("leader", "node-2", expected_version=0)
    assert new.version > old.version + 1
    for version in (old.version, old.version + 1):
        with pytest.raises(VersionConflict):
            await state.put("leader", "node-1", expected_version=version)
    assert await state.get("leader") == StateEntry("leader", "node-2", new.version)


async def test_that_holds_over_a_restart_too(path: Path) -> None:
    for expected in (1, 2, 3):
        manager = StateManager(path)
        await manager.open()
        assert (await manager.scope("a").put("k", 0)).version == expected
        await manager.scope("a").delete("k")
        await manager.close()


async def test_put_all_changes_nothing_when_one_value_is_refused(manager: StateManager) -> None:
    state = manager.scope("a")
    with pytest.raises(StateValueRefused):
        await state.put_all({"a": 1, "b": object()})
    assert await state.entries() == []


async def test_the_largest_value_is_kept_and_a_larger_one_refused(manager: StateManager) -> None:
    state, largest = manager.scope("a"), "x" * (1_048_576 - 2)
    await state.put("k", largest)
    with pytest.raises(StateValueRefused):
        await state.put("k", largest + "x")
    found = await state.get("k")
    assert found == StateEntry("k", largest, 1)


async def test_what_the_caller_does_to_a_value_afterwards_is_not_written(manager: StateManager) -> None:
    value = {"n": [1]}
    writing = asyncio.ensure_future(manager.scope("a").put("k", value))
    await asyncio.sleep(0)
    value["n"].append(2)
    await writing
    found = await manager.scope("a").get("k")
    assert found is not None
    assert found.value == {"n": [1]}


async def test_watchers_hear_before_the_writer_goes_on_and_never_of_a_conflict(manager: StateManager) -> None:
    state, heard = manager.scope("a"), list[tuple[str, int]]()
    state.watch("k", lambda entry, key: heard.append((key, entry.version if entry else 0)))
    await state.put_all({"k2": 1, "k1": 1})
    assert heard == [("k2", 1), ("k1", 1)]
    with pytest.raises(VersionConflict):
        await state.put("k1", 2, expected_version=7)
    assert not await state.delete("k3")
    assert heard == [("k2", 1), ("k1", 1)]
    manager.close_owner("a")
    await state.delete("k1")
    assert len(heard) == 2


async def test_a_watcher_that_raises_does_not_fail_the_write(manager: StateManager) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["message"]))

    def fail(entry: StateEntry | None, key: str) -> None:
        raise RuntimeError("secret")

    manager.scope("a").watch("", fail)
    assert (await manager.scope("a").put("k", 1)).version == 1
    assert reported == ['a watcher of "a" failed on "k"']


async def test_a_cancelled_writer_disturbs_nobody(manager: StateManager) -> None:
    state = manager.scope("a")
    writers = [asyncio.ensure_future(state.put(f"k{n}", n)) for n in range(50)]
    await asyncio.sleep(0)
    for writer in writers[::2]:
        writer.cancel()
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert [entry.key for entry in results if isinstance(entry, StateEntry)] == [f"k{n}" for n in range(1, 50, 2)]
    assert len(await state.entries()) == 50, "they were on their way already"


async def test_writes_that_wait_are_bounded_and_the_next_fit_again(
    manager: StateManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "MAX_WAITING_BYTES", 10_000)
    state = manager.scope("a")
    results = await asyncio.gather(*(state.put(f"k{n}", "x" * 1_000) for n in range(20)), return_exceptions=True)
    refused = [error for error in results if isinstance(error, StateUnavailable)]
    assert len(refused) == 20 - 10_000 // (1_002 + manager_module.CHANGE_BYTES)
    assert len(await state.entries()) == 20 - len(refused)
    await state.put("k", "x" * 1_000)


async def test_the_file_is_private_and_closing_leaves_only_it_and_its_mark(path: Path) -> None:
    previous = os.umask(0)
    try:
        manager = StateManager(path)
        await manager.open()
        await manager.scope("a").put("k", 1)
        assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == dict.fromkeys(
            ["state.db", "state.db-wal", "state.db-shm", "state.db-mark"], 0o600
        )
        await manager.close()
        assert names(path.parent) == {"state.db", "state.db-mark"}
    finally:
        os.umask(previous)


async def test_a_file_open_to_others_is_closed_to_them(path: Path) -> None:
    for _ in range(2):
        manager = StateManager(path)
        await manager.open()
        assert path.stat().st_mode & 0o777 == 0o600
        await manager.close()
        path.chmod(0o644)


async def test_nothing_is_left_of_a_closed_store(path: Path) -> None:
    before = footprint()
    for _ in range(3):
        manager = StateManager(path)
        await manager.open()
        writing = [asyncio.ensure_future(manager.scope("a").put("k", n)) for n in range(20)]
        await asyncio.sleep(0)
        await manager.close()
        assert (await asyncio.gather(*writing))[-1].value == 19, "what waits is written first"
        await manager.close()
        with pytest.raises(StateUnavailable):
            await manager.scope("a").get("k")
        with pytest.raises(StateUnavailable):
            await manager.scope("a").put("k", 1)
    assert footprint() == before


async def test_every_commit_is_asked_to_be_synced(manager: StateManager, path: Path) -> None:
    database = Database(path)
    pragmas = ("journal_mode", "synchronous", "user_version")
    found = [database._connection.execute(f"pragma {name}").fetchone()[0] for name in pragmas]
    database.close()
    assert found == ["wal", 2, 1], "2 is FULL"


# ------------------------------------------------------------ snapshots


async def test_a_snapshot_can_be_put_in_place_of_the_file(manager: StateManager, path: Path, tmp_path: Path) -> None:
    state = manager.scope("a")
    await state.put_all({"k": 1, "l": None})
    await state.delete("l")
    target = tmp_path / "copies" / "state.db"
    target.parent.mkdir()
    await manager.snapshot(target)
    await state.put("k", 2)
    assert names(target.parent) == {"state.db"}
    assert target.stat().st_mode & 0o777 == 0o600
    assert read_offline(target, "a", "k") == StateEntry("k", 1, 1)
    copy = StateManager(target)
    await copy.open()
    assert (await copy.scope("a").put("l", 1)).version == 2, "what was removed is remembered"
    await copy.close()


async def test_a_snapshot_replaces_the_one_before_and_a_failed_one_leaves_it(
    manager: StateManager, tmp_path: Path
) -> None:
    target = tmp_path / "snapshot.db"
    for number in (1, 2):
        await manager.scope("a").put("k", number)
        await manager.snapshot(target)
    assert read_offline(target, "a", "k") == StateEntry("k", 2, 2)
    blocker = tmp_path / "snapshot.db.new"
    blocker.mkdir()
    with pytest.raises(StateUnavailable):
        await manager.snapshot(target)
    blocker.rmdir()
    assert read_offline(target, "a", "k") == StateEntry("k", 2, 2)
    with pytest.raises(StateUnavailable):
        await manager.snapshot(tmp_path / "missing" / "snapshot.db")
    with pytest.raises(ValueError, match="state file"):
        await manager.snapshot(tmp_path / "." / "state.db")


async def test_writes_go_on_while_a_snapshot_is_made(manager: StateManager, tmp_path: Path) -> None:
    state = manager.scope("a")
    await state.put_all({f"k{n}": [0, "x" * 20_000] for n in range(100)})
    copying = asyncio.ensure_future(manager.snapshot(tmp_path / "snapshot.db"))
    turn = 0
    while not copying.done():
        turn += 1
        await state.put_all({f"k{n}": [turn] for n in range(100)})
    await copying
    copy = StateManager(tmp_path / "snapshot.db")
    await copy.open()
    turns = {entry.value[0] for entry in await copy.scope("a").entries()}
    await copy.close()
    assert len(turns) == 1, "a snapshot is one moment"


# ------------------------------------------------------------ from outside


async def test_it_can_be_read_while_a_node_runs(manager: StateManager, path: Path) -> None:
    for number in range(50):
        await manager.scope("audit").put("head", {"seq": number})
        entry = await asyncio.to_thread(read_offline, path, "audit", "head")
        assert entry == StateEntry("head", {"seq": number}, number + 1)
    assert read_offline(path, "audit", "tail") is None
    assert read_offline(path, "other", "head") is None


async def test_a_closed_file_is_read_without_a_trace(path: Path) -> None:
    manager = StateManager(path)
    await manager.open()
    await manager.scope("a").put("k", 1)
    await manager.close()
    assert read_offline(path, "a", "k") == StateEntry("k", 1, 1)
    assert names(path.parent) == {"state.db", "state.db-mark"}


def test_a_file_that_is_not_there_is_an_error(path: Path) -> None:
    with pytest.raises(StateUnavailable):
        read_offline(path, "a", "k")
    assert names(path.parent) == set()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from magmobo.kernel.state.manager import StateManager

async def main():
    manager = StateManager(Path(sys.argv[1]))
    await manager.open()
    for number in range(20):
        await manager.scope("a").put("k", number)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

READ_AS_SOMEBODY_ELSE = """
import os, sqlite3, sys, tempfile
from pathlib import Path
from magmobo.kernel.state.offline import read_offline

tempfile.gettempdir()
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
print(read_offline(Path(sys.argv[1]), "a", "k"))
"""


@pytest.mark.parametrize("missing", ["", "-shm"])
def test_it_can_be_read_after_kill_9_also_where_nothing_can_be_written(path: Path, missing: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert "state.db-wal" in names(path.parent)
    if missing:
        path.with_name("state.db" + missing).unlink()
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        folder = shutil.copytree(path.parent, Path(open_to_all) / "read-only")
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        command = [sys.executable, "-c", READ_AS_SOMEBODY_ELSE, str(folder / "state.db")]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert output.strip() == "StateEntry(key='k', value=19, version=20)"
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        folder.chmod(0o755)
    assert read_offline(path, "a", "k") == StateEntry("k", 19, 20)
