"""How a worker comes, goes and comes again: starts that fail, kills, idle stops, draining. Processes are real."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.extensions.mediation import Mediation, installed, mediation, question, said, until
from tests.integration.extensions.played import Played

from magmobo.extensions.installed import Installed
from magmobo.extensions.workers import backoff
from magmobo.extensions.workers.errors import HandlersDiffer, WorkerEnded, WorkerStartFailed, WorkerUnavailable
from magmobo.extensions.workers.process import Ended
from magmobo.extensions.workers.states import WorkerState
from magmobo.extensions.workers.worker import Worker
from magmobo.testing.extensions import PlainWorker

POINT = "api.before_request"
CODE = f"""
@ext.hook("{POINT}")
async def hook(call):
    if call.data.get("die"):
        os._exit(7)
    await asyncio.sleep(call.data.get("wait", 0))
    return None

@ext.command("pid")
def pid(arguments):
    return os.getpid()
"""
BINDINGS: dict[str, Any] = {"hooks": [{"point": POINT}], "commands": [{"name": "pid"}]}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Mediation]:
    async with mediation(tmp_path) as plane:
        yield plane


@pytest.fixture
async def worker(plane: Mediation, tmp_path: Path) -> Worker:
    return await plane.running(installed(tmp_path, "one", CODE, **BINDINGS))


async def pid_of(worker: Worker) -> int:
    pid: int = said(await worker.ask(question("command:pid", {"arguments": []}, timeout_s=15)))
    return pid


async def crashes(plane: Mediation, count: int) -> None:
    await until(lambda: len(plane.crashes) == count)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---------------------------------------------------------------- starts


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("def (", "SyntaxError"),
        ("import nothing_like_this", "ModuleNotFoundError"),
        ("raise SystemExit(5)", "SystemExit"),
        ("os._exit(9)", "it ended with status 9"),
        ("os.kill(os.getpid(), 11)", "it was ended by signal 11"),
        ("ext = 5", "not an Extension"),
    ],
)
async def test_code_that_does_not_load_says_why(plane: Mediation, tmp_path: Path, code: str, reason: str) -> None:
    worker = plane.worker(installed(tmp_path, "one", code))
    with pytest.raises(WorkerStartFailed, match=reason):
        await worker.start()
    assert worker.state is WorkerState.NEW
    assert not is_alive(plane.processes[0].pid)
    assert not plane.escapes
    assert not plane.crashes
    with pytest.raises(WorkerUnavailable, match="it is stopped"):
        await pid_of(worker)


async def test_it_may_be_started_again_after_it_did_not(plane: Mediation, tmp_path: Path) -> None:
    extension = installed(tmp_path, "one", "raise RuntimeError", **BINDINGS)
    worker = plane.worker(extension)
    with pytest.raises(WorkerStartFailed):
        await worker.start()
    installed(tmp_path, "one", CODE, **BINDINGS)
    await worker.start()
    assert await pid_of(worker) == plane.processes[1].pid


async def test_handlers_have_to_be_those_of_the_manifest(plane: Mediation, tmp_path: Path) -> None:
    async def spawn(_: Installed) -> Played:
        return Played()

    worker = plane.worker(installed(tmp_path, "one", "", **BINDINGS), spawn=spawn)
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(plane.processes))
    await plane.processes[0].greet("command:pid", "command:more", "health")
    with pytest.raises(HandlersDiffer) as caught:
        await starting
    assert (caught.value.missing, caught.value.unknown) == ((f"hook:{POINT}",), ("command:more",))
    assert str(caught.value) == f"one: the code is without hook:{POINT} and has unasked command:more"
    assert plane.processes[0].exit.done()


async def test_one_that_is_not_ready_in_time_is_ended(plane: Mediation, tmp_path: Path) -> None:
    worker = plane.worker(installed(tmp_path, "one", "time.sleep(60)"), start_timeout_s=0.4)
    with pytest.raises(WorkerStartFailed, match=r"not ready within 0.4 s"):
        await worker.start()
    assert not is_alive(plane.processes[0].pid)


async def test_a_start_that_is_given_up_leaves_no_process(plane: Mediation, tmp_path: Path) -> None:
    worker = plane.worker(installed(tmp_path, "one", "time.sleep(60)"))
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(plane.processes))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with asyncio.timeout(30):
        await plane.processes[0].wait()


async def test_an_error_of_the_sandbox_is_told_as_it_is(plane: Mediation, tmp_path: Path) -> None:
    async def spawn(_: Installed) -> PlainWorker:
        raise PermissionError("no layer")

    worker = plane.worker(installed(tmp_path, "one", CODE, **BINDINGS), spawn=spawn)
    with pytest.raises(PermissionError, match="no layer"):
        await worker.start()


# ---------------------------------------------------------------- crashes


async def test_after_a_kill_the_next_hook_is_served(plane: Mediation, worker: Worker) -> None:
    before = await pid_of(worker)
    os.kill(before, signal.SIGKILL)
    await until(lambda: worker.state is not WorkerState.READY)
    await worker.ask(question(f"hook:{POINT}", timeout_s=15))
    after = await pid_of(worker)
    assert after != before
    (crash,) = plane.crashes
    assert (crash.signal, crash.reason) == (signal.SIGKILL, "it was ended by signal 9")
    assert worker.figures()["restarts"] == 1


async def test_who_waits_is_told_that_it_ended(plane: Mediation, worker: Worker) -> None:
    waiting = [asyncio.create_task(worker.ask(question(f"hook:{POINT}", {"wait": 60}))) for _ in range(10)]
    with pytest.raises(WorkerEnded):
        await worker.ask(question(f"hook:{POINT}", {"die": True}))
    async with asyncio.timeout(30):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, WorkerEnded) for result in results)
    await until(lambda: bool(plane.crashes))
    assert plane.crashes[0].code == 7


async def test_no_call_is_lost_or_doubled_over_many_kills(plane: Mediation, worker: Worker) -> None:
    answered = failed = 0

    async def ask_on() -> None:
        nonlocal answered, failed
        for _ in range(60):
            try:
                await worker.ask(question(f"hook:{POINT}", timeout_s=20))
                answered += 1
            except WorkerEnded:
                failed += 1

    asking = [asyncio.create_task(ask_on()) for _ in range(4)]
    for number in range(2):
        os.kill(await pid_of(worker), signal.SIGKILL)
        await crashes(plane, number + 1)
    async with asyncio.timeout(30):
        await asyncio.gather(*asking)
    assert answered + failed == 240
    assert failed <= 2 * 4, "only calls that were under way fail"
    assert worker.figures()["in_flight"] == 0


async def test_one_that_keeps_ending_is_started_ever_more_slowly(
    plane: Mediation, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "DELAYS_S", (0.0, 0.05, 60.0))
    for number in range(3):
        os.kill(await pid_of(worker), signal.SIGKILL)
        await crashes(plane, number + 1)
    with pytest.raises(WorkerUnavailable, match="it is restarting"):
        await worker.ask(question(f"hook:{POINT}", timeout_s=0.2))
    assert len(plane.processes) == 3


async def test_a_restart_that_fails_is_told_and_tried_again(plane: Mediation, worker: Worker) -> None:
    broken = worker.installed.code_dir / "extension.py"
    whole = broken.read_text()
    broken.write_text("raise RuntimeError('broken')")
    os.kill(await pid_of(worker), signal.SIGKILL)
    await until(lambda: len(plane.crashes) == 2)
    assert "RuntimeError: broken" in plane.crashes[1].reason
    broken.write_text(whole)
    assert await pid_of(worker) > 0


async def test_whoever_is_told_of_a_crash_may_end_it_for_good(plane: Mediation, tmp_path: Path) -> None:
    def stop(_: Installed, ended: Ended) -> None:
        plane.crashes.append(ended)
        worker.kill()

    worker = await plane.running(installed(tmp_path, "one", CODE, **BINDINGS), on_crash=stop)
    os.kill(await pid_of(worker), signal.SIGKILL)
    await until(lambda: bool(plane.crashes))
    with pytest.raises(WorkerUnavailable, match="it is stopped"):
        await pid_of(worker)
    assert len(plane.processes) == 1


async def test_an_escape_that_the_sandbox_saw_ends_it_for_good(plane: Mediation, tmp_path: Path) -> None:
    async def spawn(_: Installed) -> Played:
        return Played()

    worker = plane.worker(installed(tmp_path, "one", "", **BINDINGS), spawn=spawn)
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(plane.processes))
    peer: Played = plane.processes[0]
    await peer.greet(*worker.installed.manifest.handlers())
    await starting
    peer.end(Ended("", None, 31, "system call 101 (ptrace)"))
    await until(lambda: bool(plane.escapes))
    assert plane.escapes == ["system call 101 (ptrace)"]
    assert not plane.crashes
    assert worker.state is WorkerState.ENDED
    assert len(plane.processes) == 1


async def test_one_that_closes_its_socket_and_lives_on_is_killed(plane: Mediation, tmp_path: Path) -> None:
    code = CODE + "\n@ext.health\ndef health():\n    os.closerange(3, 100)\n    time.sleep(60)\n"
    worker = await plane.running(installed(tmp_path, "one", code, **BINDINGS))
    with pytest.raises(WorkerEnded):
        await worker.ask(question("health"))
    await until(lambda: bool(plane.crashes))
    assert plane.crashes[0].signal == signal.SIGKILL


# ---------------------------------------------------------------- idle, drain, kill


async def test_one_that_nobody_asks_ends_and_is_there_when_it_is_asked(plane: Mediation, tmp_path: Path) -> None:
    worker = await plane.running(installed(tmp_path, "one", CODE, **BINDINGS), idle_stop_s=0.1)
    first = plane.processes[0]
    await until(lambda: worker.is_idle)
    async with asyncio.timeout(30):
        assert (await first.wait()).code == 0
    assert await pid_of(worker) == plane.processes[1].pid
    assert not plane.crashes
    assert worker.figures()["restarts"] == 0
    assert worker.figures()["calls"] == 1


async def test_one_that_is_asked_now_and_then_stays(plane: Mediation, tmp_path: Path) -> None:
    worker = await plane.running(installed(tmp_path, "one", CODE, **BINDINGS), idle_stop_s=0.5)
    now_s, longest_s = asyncio.get_running_loop().time, 0.0
    for _ in range(15):
        await pid_of(worker)
        answered_s = now_s()
        await asyncio.sleep(0.05)
        longest_s = max(longest_s, now_s() - answered_s)
    assert len(plane.processes) == 1 or longest_s >= 0.5  # unless this machine stood still


async def test_questions_about_its_health_do_not_keep_it_from_being_idle(plane: Mediation, tmp_path: Path) -> None:
    code = CODE + "\n@ext.health\ndef health():\n    return True\n"
    worker = await plane.running(installed(tmp_path, "one", code, **BINDINGS), idle_stop_s=300)
    worker.idle_stop_s = 0.2  # counts from now on, also for a process that is there
    async with asyncio.timeout(30):
        while not worker.is_idle:
            await worker.ask(question("health", {}))
            await asyncio.sleep(0.01)
    assert len(plane.processes) == 1


async def test_a_drain_lets_it_finish(plane: Mediation, worker: Worker) -> None:
    asking = asyncio.create_task(worker.ask(question(f"hook:{POINT}", {"wait": 0.2})))
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await worker.drain(5.0)
    assert said(await asking) is None
    assert (await plane.processes[0].wait()).code == 0
    assert worker.state is WorkerState.ENDED
    with pytest.raises(WorkerUnavailable, match="it is stopped"):
        await pid_of(worker)


async def test_a_drain_ends_in_time(plane: Mediation, worker: Worker) -> None:
    asking = asyncio.create_task(worker.ask(question(f"hook:{POINT}", {"wait": 60}, timeout_s=60)))
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await worker.drain(0.1)
    with pytest.raises(WorkerEnded):
        await asking
    assert not is_alive(plane.processes[0].pid)
    assert not plane.crashes


async def test_a_drain_during_a_start_leaves_nothing(plane: Mediation, tmp_path: Path) -> None:
    worker = plane.worker(installed(tmp_path, "one", "time.sleep(60)"))
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(plane.processes))
    async with asyncio.timeout(30):
        await worker.drain(1.0)
    assert not is_alive(plane.processes[0].pid)
    with pytest.raises(WorkerUnavailable, match="it is stopped"):
        await starting


async def test_a_kill_is_at_once_and_for_good(plane: Mediation, worker: Worker) -> None:
    asking = asyncio.create_task(worker.ask(question(f"hook:{POINT}", {"wait": 60})))
    await asyncio.sleep(0)
    worker.kill()
    with pytest.raises(WorkerEnded):
        await asking
    async with asyncio.timeout(30):
        await worker.drain(0)
        assert (await plane.processes[0].wait()).signal == signal.SIGKILL
    assert not plane.crashes
    with pytest.raises(WorkerUnavailable):
        await worker.start()
