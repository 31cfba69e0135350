"""Control groups of real workers, by the kernel's own files: what is written, what it does, and that nothing stays.

Where none can be made (a plain user without a delegated group) workers run without; that is what is seen there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
import structlog

from magmobo.extensions.sandbox import cgroup, plainfiles
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.limits import THREADS
from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.sandbox.worker import Exit, WorkerProcess, WorkerSpec

MIB = 1_048_576
MEMORY_BYTES = 64 * MIB
BOUND = str(128 * MIB)
"""What an extension may add, and 64 MiB for what it shares and for its folder of temporary files."""
Born = Callable[..., Awaitable[WorkerProcess]]
RUNTIME = """
import mmap, os

def run(fd):
    taken = mmap.mmap(-1, int(os.read(fd, 9)) << 20)
    while True:
        taken.write(b"x" * (1 << 20))
        if taken.tell() == len(taken):
            os.write(fd, b"taken")
            os.read(fd, 1)
"""


@pytest.fixture
async def spawner(tmp_path: Path) -> AsyncIterator[Spawner]:
    """Its workers wait for a number, take as many MiB, and wait again."""
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "takes.py").write_text(RUNTIME)
    made = Spawner(log=structlog.get_logger(), runtime="takes:run", import_from=[tmp_path / "runtime"])
    yield made
    await made.close()


@pytest.fixture
async def born(spawner: Spawner, tmp_path: Path) -> AsyncIterator[Born]:
    """Starts workers, without these layers."""
    (tmp_path / "code").mkdir()
    uid = 21_000 if os.geteuid() == 0 else None
    spec = WorkerSpec(extension_id="tried", code_dir=tmp_path / "code", uid=uid, memory_bytes=MEMORY_BYTES)
    workers: list[WorkerProcess] = []

    async def spawn(*without: Layer) -> WorkerProcess:
        layers = (await spawner.tiers()).layers - set(without)
        workers.append(await spawner.spawn(msgspec.structs.replace(spec, layers=layers)))
        return workers[-1]

    yield spawn
    for worker in workers:
        worker.socket.close()


def groups_of(pid: int) -> list[Path]:
    """Groups of ours that hold this process, one for each controller in version 1."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    paths = {line.split(":", 2)[2].lstrip("/") for line in lines if "/magmobo-worker-" in line}
    tops = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
    return [top / path for top in tops for path in paths if (top / path).is_dir()]


def said(groups: list[Path], *names: str) -> list[str]:
    """What files of these groups hold, of those that are there."""
    files = (group / name for name in names for group in groups)
    return [" ".join(file.read_text().split()) for file in files if file.exists()]


async def gone(groups: list[Path]) -> None:
    async with asyncio.timeout(10):
        while any(group.exists() for group in groups):
            await asyncio.sleep(0.01)


async def taken(worker: WorkerProcess, size_mib: int) -> bytes:
    """What a worker says that takes so much: nothing, when it ended."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        await loop.sock_sendall(worker.socket, str(size_mib).encode())
        return await loop.sock_recv(worker.socket, 9)


async def has_groups(spawner: Spawner) -> bool:
    return Layer.CGROUP in (await spawner.tiers()).layers


async def test_a_worker_is_in_a_group_of_its_own_with_every_bound(spawner: Spawner, born: Born) -> None:
    workers = [await born(), await born()]
    of_each = [groups_of(worker.pid) for worker in workers]
    assert [len(groups) > 0 for groups in of_each] == [await has_groups(spawner)] * 2
    assert not set(of_each[0]) & set(of_each[1])

    for groups in filter(None, of_each):
        assert said(groups, "memory.max", "memory.limit_in_bytes") == [BOUND]
        assert set(said(groups, "memory.swap.max", "memory.memsw.limit_in_bytes")) <= {"0", BOUND}
        assert said(groups, "pids.max") == [str(THREADS + 1)]
        assert said(groups, "cpu.max", "cpu.cfs_quota_us") in (["100000 100000"], ["100000"])
    for worker in workers:
        worker.kill()
        assert await worker.wait() == Exit(None, signal.SIGKILL)
    await gone([*of_each[0], *of_each[1]])


async def test_who_takes_more_memory_than_it_may_is_ended_and_that_is_the_reason(spawner: Spawner, born: Born) -> None:
    """Shared memory, without the limit on address space; a part of it moved to swap would be as much too much."""
    modest, greedy = await born(Layer.LIMITS), await born(Layer.LIMITS)
    groups = groups_of(greedy.pid)

    assert await taken(modest, 32) == b"taken"
    assert (await taken(greedy, 160) == b"") == await has_groups(spawner)
    greedy.kill()
    ran_out = "it ran out of memory" if await has_groups(spawner) else ""
    assert await greedy.wait() == Exit(None, signal.SIGKILL, reason=ran_out)
    assert modest.is_running
    await gone(groups)


async def test_groups_of_a_zygote_that_died_are_removed_by_the_next(born: Born) -> None:
    worker = await born()
    groups = groups_of(worker.pid)
    os.kill(int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    await worker.wait()
    async with asyncio.timeout(10):
        while any((group / "cgroup.procs").read_text() for group in groups):
            await asyncio.sleep(0.01)
    await born()

    assert not [group for group in groups if group.exists()]


def test_a_group_that_may_be_made_and_not_entered_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the group above both, which version 2 asks as well, is not ours: workers then run without."""
    before = cgroup.find()

    def refuse(_groups: cgroup.Groups, _number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(cgroup.Groups, "enter", refuse)
    assert cgroup.find() is None
    assert not [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"magmobo-worker-{os.getpid()}-" in path]
    monkeypatch.undo()
    assert (cgroup.find() is None) == (before is None)


@pytest.mark.parametrize(("refused", "is_borne"), [("cpu.cfs_quota_us", True), ("memory.limit_in_bytes", False)])
def test_a_node_with_less_than_one_processor_has_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, is_borne: bool
) -> None:
    """Version 1 refuses the quota of one processor below a smaller one, which holds for the worker anyway."""
    written: list[str] = []

    def write(path: str, _text: str) -> None:
        if path.endswith(refused):
            raise OSError(errno.EINVAL, "Invalid argument")
        written.append(Path(path).name)

    monkeypatch.setattr(plainfiles, "write", write)
    groups = cgroup.Groups(dict.fromkeys(("cpu", "memory", "pids"), tmp_path), is_unified=False)
    with nullcontext() if is_borne else pytest.raises(OSError, match="Invalid"):
        groups.make(1, MEMORY_BYTES)
    assert ("memory.limit_in_bytes" in written and "pids.max" in written) == is_borne
