"""Real workers: they start, answer, end, and nothing of them stays, whatever happens to them or to their zygote."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from magmobo.extensions.sandbox import quota, tiers
from magmobo.extensions.sandbox import spawner as spawning
from magmobo.extensions.sandbox.control import Finding
from magmobo.extensions.sandbox.errors import NoSandbox, SandboxFailed, WorkerUnfit, ZygoteFailed
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.quota import find_excess
from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.sandbox.worker import Exit, Usage, WorkerProcess, WorkerSpec
from magx import wire

UID = 21_000 if os.geteuid() == 0 else None
NOTHING: frozenset[Layer] = frozenset()
RUNTIME = """
import json, os, socket, sys

def rehearse():
    sys.rehearsed = [os.getpid(), *getattr(sys, "rehearsed", [])]

def run(fd):
    with socket.socket(fileno=fd) as node, node.makefile("rw") as lines:
        for line in lines:
            try:
                answer = eval(json.loads(line), {"os": os, "sys": sys})
            except Exception as error:
                answer = repr(error)
            lines.write(json.dumps(answer, default=str) + chr(10))
            lines.flush()
"""


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Callable[[], Spawner]]:
    """Makes spawners whose workers answer what they are told to evaluate; closes them."""
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "evaluates.py").write_text(RUNTIME)
    spawners: list[Spawner] = []

    def make(python: str = sys.executable, runtime: str = "evaluates:run", allow_unsandboxed: bool = False) -> Spawner:
        spawners.append(
            Spawner(
                log=structlog.get_logger(), python=python, runtime=runtime, import_from=[tmp_path / "runtime"],
                allow_unsandboxed=allow_unsandboxed,
            )
        )  # fmt: skip
        return spawners[-1]

    yield make
    for one in spawners:
        await one.close()


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    (tmp_path / "code").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "code" / "main.py").write_text("from magx import Extension\next = Extension()\n")
    return WorkerSpec(extension_id="tried", code_dir=tmp_path / "code", data_dir=tmp_path / "data", uid=UID)


async def ask(worker: WorkerProcess, expression: str) -> object:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        await loop.sock_sendall(worker.socket, json.dumps(expression).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            data += await loop.sock_recv(worker.socket, 65_536)
    return json.loads(data)


async def ended(worker: WorkerProcess) -> Exit:
    async with asyncio.timeout(30):
        return await worker.wait()


def replaced(spec: WorkerSpec, **changes: object) -> WorkerSpec:
    import msgspec

    return msgspec.structs.replace(spec, **changes)


async def test_a_worker_runs_the_sdk_and_answers_the_protocol(spec: WorkerSpec) -> None:
    """The real runtime, through everything that this machine's sandbox has."""
    spawner = Spawner(log=structlog.get_logger())
    loop = asyncio.get_running_loop()
    try:
        worker = await spawner.spawn(spec)
        start = wire.Start(wire.PROTOCOL, "tried", "1.0.0", "main:ext", str(spec.code_dir), str(spec.data_dir), {}, [])
        async with asyncio.timeout(30):
            await loop.sock_sendall(worker.socket, wire.encode(start))
            frames, bodies = wire.Frames(), []
            while not bodies:
                bodies = list(frames.feed(await loop.sock_recv(worker.socket, 65_536)))
        assert wire.decode_from_worker(bodies[0]) == wire.Ready(wire.PROTOCOL, [])
        worker.socket.close()
        assert await ended(worker) == Exit(0, None)
    finally:
        await spawner.close()


async def test_a_worker_is_alone_in_its_world(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    spawner = made()
    found = await spawner.tiers()
    worker = await spawner.spawn(spec)

    if found.tier == "S3":
        assert await ask(worker, "os.getpid()") == 1
        assert await ask(worker, "os.uname().nodename") == "extension"
        assert await ask(worker, "os.path.exists('/proc') or os.path.exists('/etc') or os.path.exists('/sys')") is False
    assert await ask(worker, "[name for name in sys.modules if name.startswith('magmobo')]") == []
    assert await ask(worker, "sorted(name for name in os.environ if 'PATH' in name or 'HOME' in name)") == []
    assert await ask(worker, "open(os.environ['TMPDIR'] + '/x', 'w').write('12')") == 2
    assert await ask(worker, f"open({str(spec.data_dir)!r} + '/y', 'w').write('12')") == 2
    assert spec.data_dir is not None
    assert (spec.data_dir / "y").read_text() == "12"
    assert await ask(worker, "__import__('hashlib').sha256(b'').hexdigest()[:8]") == "e3b0c442"
    assert await ask(worker, "str(__import__('sqlite3').connect(':memory:').execute('select 1').fetchone())") == "(1,)"


async def test_what_workers_share_is_done_once_and_is_a_workers(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    """The runtime's rehearsal, and Python's own state."""
    spawner = made()
    workers = [await spawner.spawn(spec), await spawner.spawn(spec)]
    rehearsed = [await ask(worker, "sys.rehearsed") for worker in workers]

    assert rehearsed[0] == rehearsed[1]
    assert len(rehearsed[0]) == 1  # type: ignore[arg-type]
    assert await ask(workers[1], "os.getpid() in sys.rehearsed") is False
    assert await ask(workers[1], "sys.argv") == ["worker"]
    assert await ask(workers[1], "__import__('gc').isenabled()") is True
    assert await ask(workers[1], "__import__('signal').getsignal(2)") == signal.SIG_DFL
    assert await ask(workers[1], "__import__('logging').root.handlers") == []


async def test_without_a_root_of_its_own_temporary_files_are_in_the_data_folder(
    made: Callable[[], Spawner], spec: WorkerSpec
) -> None:
    spawner = made()
    layers = (await spawner.tiers()).layers
    temp = [
        await ask(await spawner.spawn(replaced(spec, layers=some)), "os.environ['TMPDIR']")
        for some in (layers, layers - {Layer.ROOT, Layer.USER})
    ]

    assert temp == ["/tmp" if Layer.ROOT in layers else str(spec.data_dir), str(spec.data_dir)]


async def test_how_it_ended_is_told_to_all_who_ask_and_again(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    spawner = made()
    worker = await spawner.spawn(spec)
    asked = [asyncio.create_task(ended(worker)) for _ in range(3)]
    worker.kill()

    assert await asyncio.gather(*asked) == [Exit(None, signal.SIGKILL)] * 3
    assert await ended(worker) == Exit(None, signal.SIGKILL)
    worker.kill()
    assert worker.usage() == Usage()
    assert not worker.is_running


async def test_one_who_stops_waiting_takes_nothing_from_the_others(
    made: Callable[[], Spawner], spec: WorkerSpec
) -> None:
    worker = await made().spawn(spec)
    impatient = asyncio.create_task(worker.wait())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    worker.kill()

    assert (await ended(worker)).signal == signal.SIGKILL


@pytest.mark.parametrize(("ending", "status"), [("sys.exit(7)", 7), ("sys.exit('text')", 1), ("os._exit(3)", 3)])
async def test_a_worker_that_ends_by_itself_has_a_status(
    made: Callable[[], Spawner], spec: WorkerSpec, ending: str, status: int
) -> None:
    worker = await made().spawn(spec)
    await asyncio.get_running_loop().sock_sendall(worker.socket, json.dumps(ending).encode() + b"\n")

    assert await ended(worker) == Exit(status, None)


async def test_a_crash_is_a_signal_and_no_escape(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    """Process 1 of a namespace ignores signals that it has no handler for; a fault ends it all the same."""
    worker = await made().spawn(spec)
    crash = json.dumps("__import__('ctypes').string_at(8)").encode()
    await asyncio.get_running_loop().sock_sendall(worker.socket, crash + b"\n")

    assert await ended(worker) == Exit(None, signal.SIGSEGV)


async def test_an_escape_says_what_was_tried(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    worker = await made().spawn(spec)
    await asyncio.get_running_loop().sock_sendall(worker.socket, json.dumps("os.setuid(0)").encode() + b"\n")

    end = await ended(worker)
    assert end.signal in (signal.SIGKILL, signal.SIGSYS)
    assert "system call" in end.escape


async def test_what_it_uses_is_told(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    worker = await made().spawn(spec)
    before = worker.usage()
    await ask(worker, "[sum(range(10**6)) for _ in range(10)] and setattr(sys, 'kept', b'x' * 2**26)")
    after = worker.usage()

    assert 0 < before.private_bytes <= 12 * 2**20
    assert after.cpu_s > before.cpu_s
    assert after.private_bytes - before.private_bytes > 60 * 2**20
    assert after.memory_bytes > after.private_bytes


async def test_a_little_at_a_time_is_too_much_in_the_end(
    made: Callable[[], Spawner], spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is looked at whenever the worker did anything, however little of the CPU's time it took."""
    looks: list[int | None] = []

    def look(folder: Path, bound_bytes: int, pid: int | None = None) -> str:
        looks.append(pid)
        return find_excess(folder, bound_bytes, pid)

    monkeypatch.setattr(quota, "find_excess", look)
    monkeypatch.setattr(quota, "EVERY_S", 0.01)
    worker = await made().spawn(replaced(spec, data_bytes=65_536))
    for number in range(8):
        before, ran_ns = len(looks), worker.ran_ns()
        assert await ask(worker, f"open({str(spec.data_dir)!r} + '/{number}', 'w').write('y')") == 1
        async with asyncio.timeout(30):  # the kernel adds up what a thread ran when it stops, or at its next tick
            while worker.ran_ns() == ran_ns or len(looks) == before:
                await asyncio.sleep(0.005)
    assert await ask(worker, f"open({str(spec.data_dir)!r} + '/more', 'w').write('y' * 40_000)") == 40_000
    assert (await ended(worker)).reason == "its data folder: more than 65536 bytes"
    assert worker.ran_ns() == 0


async def test_a_layer_that_cannot_be_applied_is_named_and_nothing_runs(
    made: Callable[[], Spawner], spec: WorkerSpec, tmp_path: Path
) -> None:
    """A mount namespace is what the minimal root is made in."""
    spawner = made()
    layers = frozenset({Layer.ROOT, Layer.SECCOMP, Layer.PRIVILEGES, Layer.LANDLOCK})
    gone = replaced(spec, code_dir=tmp_path / "gone")

    with pytest.raises(SandboxFailed) as failed:
        await spawner.spawn(gone)
    assert failed.value.extension == "tried"
    assert failed.value.layer in (Layer.ROOT, Layer.LANDLOCK)
    if UID is None:
        with pytest.raises(SandboxFailed, match="root"):
            await spawner.spawn(replaced(spec, layers=layers))
    assert await ask(await spawner.spawn(spec), "1 + 1") == 2


async def test_root_gives_every_worker_a_uid_of_its_own(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    spawner = made()
    has_uids = Layer.USER in (await spawner.tiers()).layers
    if has_uids:
        with pytest.raises(WorkerUnfit):
            await spawner.spawn(replaced(spec, uid=None))
    worker = await spawner.spawn(spec)

    assert await ask(worker, "os.getuid()") == (UID if has_uids else os.getuid())
    assert await ask(worker, "os.getgroups() == [] or os.getuid() != 0") is True


async def test_many_start_at_once(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    spawner = made()
    workers = await asyncio.gather(*(spawner.spawn(spec) for _ in range(20)))

    assert len({worker.pid for worker in workers}) == 20
    assert await asyncio.gather(*(ask(worker, "6 * 7") for worker in workers)) == [42] * 20


async def test_a_start_that_is_given_up_leaves_no_process(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    spawner = made()
    await spawner.start()
    for steps in range(12):
        task = asyncio.create_task(spawner.spawn(spec))
        for _ in range(steps):
            await asyncio.sleep(0)
        if not task.cancel():  # it was faster, and the worker is ours
            (await task).kill()
        await asyncio.gather(task, return_exceptions=True)
    kept = await spawner.spawn(spec)
    zygote = _parent(kept.pid)

    async with asyncio.timeout(30):
        while _children(zygote) != {kept.pid}:
            await asyncio.sleep(0.01)


async def test_a_new_zygote_takes_the_place_of_one_that_died(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    spawner = made()
    first = await spawner.spawn(spec)
    os.kill(_parent(first.pid), signal.SIGKILL)

    end = await ended(first)
    assert end.signal == signal.SIGKILL
    assert end.reason == "the zygote ended"
    await _gone(first.pid)
    assert await ask(await spawner.spawn(spec), "1 + 1") == 2


async def test_closing_ends_everything(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    before = _descriptors()
    spawner = made()
    workers = [await spawner.spawn(spec) for _ in range(3)]
    zygote = _parent(workers[0].pid)
    await spawner.close()

    for worker in workers:
        assert (await ended(worker)).signal == signal.SIGKILL
        await _gone(worker.pid)
        worker.socket.close()
    assert not Path(f"/proc/{zygote}").exists()
    assert not [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"magmobo-worker-{zygote}-" in path]
    assert _descriptors() == before
    assert not asyncio.all_tasks() - {asyncio.current_task()}


async def test_nothing_of_the_host_is_left_in_the_minimal_root(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    """Looked at without Landlock, which would hide it."""
    spawner = made()
    found = await spawner.tiers()
    worker = await spawner.spawn(replaced(spec, layers=found.layers - {Layer.LANDLOCK}))

    if Layer.ROOT in found.layers:
        needed = {Path(path).parts[1] for path in (os.__file__, wire.__file__, str(spec.code_dir), sys.prefix)}
        assert set(await ask(worker, "os.listdir('/')")) <= needed | {"dev", "tmp", "usr"}
        assert await ask(worker, "sorted(os.listdir('/dev'))") == ["null", "urandom", "zero"]
        assert await ask(worker, f"sorted(os.listdir({str(spec.code_dir.parent)!r}))") == ["code", "data"]
        assert await ask(worker, "os.access('/', os.W_OK) or os.access('/dev', os.W_OK)") is False


async def test_python_is_whole_after_the_fork(made: Callable[[], Spawner], spec: WorkerSpec) -> None:
    """The lock on imports is free, numbers are random in each worker, and threads know who they are."""
    spawner = made()
    first, second = await spawner.spawn(spec), await spawner.spawn(spec)
    number = "__import__('random').random()"

    assert await ask(first, number) != await ask(second, number)
    assert await ask(first, "__import__('uuid').uuid4().hex") != await ask(second, "__import__('uuid').uuid4().hex")
    if (await spawner.tiers()).tier == "S3":
        thread = "__import__('threading').Thread(target=__import__, args=('colorsys',), daemon=True)"
        started = f"[(one.start(), one.join(5), one.is_alive()) for one in [{thread}]][0][2]"
        assert await ask(first, started) is False
        assert await ask(first, "'colorsys' in sys.modules") is True
        assert await ask(first, "__import__('threading').get_native_id()") == 1


async def test_workers_and_zygote_end_with_a_node_that_is_killed(tmp_path: Path, spec: WorkerSpec) -> None:
    """Even one that never looks at its socket."""
    (tmp_path / "spins.py").write_text("def run(fd):\n    while True:\n        pass\n")
    script = f"""
import asyncio, os, structlog, sys
from pathlib import Path
from magmobo.extensions.sandbox.quota import find_excess
from magmobo.extensions.sandbox.spawner import Spawner
from magmobo.extensions.sandbox.worker import WorkerSpec
async def main():
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    spawner = Spawner(log=structlog.get_logger(), runtime="spins:run", import_from=[Path({str(tmp_path)!r})])
    worker = await spawner.spawn(WorkerSpec(extension_id="x", code_dir=Path({str(spec.code_dir)!r}), uid={UID!r}))
    print(worker.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        pid = int(node.stdout.readline())
        zygote = _parent(pid)
        node.kill()

    await _gone(pid)
    await _gone(zygote)


async def test_a_python_that_is_none_is_said(made: Callable[..., Spawner], spec: WorkerSpec) -> None:
    with pytest.raises(ZygoteFailed):
        await made(python="/nonexistent/python").spawn(spec)
    with pytest.raises(ZygoteFailed, match="No module named 'nothing'"):
        await made(runtime="nothing:run").spawn(spec)


async def test_without_a_sandbox_nothing_starts_unless_it_is_allowed(
    made: Callable[..., Spawner], spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine where seccomp does not work, played by what is made of what was found."""
    found = tiers.judge([Finding(Layer.SECCOMP, False, "no")])

    async def none_here(_spawner: Spawner) -> tiers.Tiers:
        return found

    monkeypatch.setattr(spawning.Spawner, "tiers", none_here)
    with pytest.raises(NoSandbox, match="seccomp"):
        await made().spawn(spec)
    worker = await made(allow_unsandboxed=True).spawn(spec)
    assert await ask(worker, "os.getuid()") == os.getuid()
    worker.kill()
    assert await ended(worker) == Exit(None, signal.SIGKILL)


async def test_the_report_says_what_this_machine_gives() -> None:
    found = await spawning.probe(structlog.get_logger())
    report = tiers.report(found)

    assert report.tier == found.tier
    assert {line.name for line in report.lines} >= {"seccomp", "Landlock", "namespaces", "minimal root"}
    assert all(line.remedy for line in report.lines if not line.ok)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _descriptors() -> set[str]:
    return {f"{one.name} {one.readlink()}" for one in Path("/proc/self/fd").iterdir() if one.exists()}


async def _gone(pid: int) -> None:
    """Wait until no process has this pid, but perhaps one that nobody has waited for yet."""
    async with asyncio.timeout(30):
        while True:
            try:
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                    return
            except OSError:
                return
            await asyncio.sleep(0.01)
