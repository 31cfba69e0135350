"""A fault at each await of a boot leaves nothing: no task, descriptor, thread, child, subscription, lock or file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from msgspec import Struct
from tests.integration.boot.faults import Fault, Mode, armed
from tests.integration.boot.parts import PARTS

from magmobo.kernel.errors import BootFailed
from magmobo.kernel.kernel import Kernel
from magmobo.testing.harness import Footprint, footprint, make_kernel

NAMES = frozenset(part.name for part in PARTS)
SETTLE_S = 30.0
SHUTDOWN_S, QUICK_S, PATIENT_S = 5.0, 0.03, 20.0


class Belongings(Struct, frozen=True):
    """What a boot could leave in this process and in its folder."""

    inside: Footprint
    children: frozenset[int]
    threads: frozenset[str]
    files: frozenset[str]


def belongings(data_dir: Path) -> Belongings:
    threads = Path(f"/proc/{os.getpid()}/task").iterdir()
    children = {int(pid) for thread in threads for pid in _read(thread / "children").split()}
    files = {entry.name for entry in data_dir.iterdir() if entry.name.endswith(".tmp")}
    # asyncio keeps the threads of its own pool, and one that waits for a child ends with it
    ours = {f"{one.name} {one.ident}" for one in threading.enumerate() if one.name.startswith(("mag", "loop"))}
    return Belongings(footprint(), frozenset(children), frozenset(ours), frozenset(files))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # a thread that has just ended
        return ""


async def left_behind(data_dir: Path, before: Belongings) -> dict[str, list[str]]:
    """What is there beyond `before` once nothing more goes away, or after a while; empty when there is nothing."""
    ends_at_s = asyncio.get_running_loop().time() + SETTLE_S
    while (left := _beyond(before, belongings(data_dir))) and asyncio.get_running_loop().time() < ends_at_s:
        await asyncio.sleep(0)
    return left


def _beyond(before: Belongings, after: Belongings) -> dict[str, list[str]]:
    found = {
        "tasks": [task.get_name() for task in after.inside.tasks - before.inside.tasks],
        "descriptors": list(after.inside.descriptors - before.inside.descriptors),
        "threads": list(after.threads - before.threads),
        "children": [str(child) for child in after.children - before.children],
        "files": list(after.files - before.files),
    }
    return {kind: sorted(names) for kind, names in found.items() if names}


def assert_nothing_of_it_is_left(kernel: Kernel, data_dir: Path) -> None:
    assert {name: kernel.bus.subscription_count(name) for name in NAMES} == dict.fromkeys(NAMES, 0)
    probe = os.open(data_dir / "probe", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(probe)


async def boot_with(fault: Fault, data_dir: Path, start_s: float) -> tuple[Kernel, BaseException | None]:
    config = {"kernel": {"start_timeout_s": start_s, "shutdown_timeout_s": SHUTDOWN_S}}
    kernel = make_kernel(*PARTS, data_dir=data_dir, config=config)
    with armed(fault):
        fault.boot = asyncio.create_task(kernel.boot(), name="the boot")
        await asyncio.wait({fault.boot}, timeout=60)
        assert fault.boot.done(), "the boot never ended"
    error = asyncio.CancelledError() if fault.boot.cancelled() else fault.boot.exception()
    if error is None:
        await kernel.shutdown()
    return kernel, error


async def every_fault(mode: Mode, data_dir: Path) -> int:
    """Boot again and again, with the fault one suspension later each time, until it comes too late to strike."""
    at, start_s = 0, QUICK_S if mode == "hang" else PATIENT_S
    await boot_with(Fault(mode, 0, NAMES), data_dir, start_s)  # what asyncio makes once and keeps
    while True:
        at += 1
        before = belongings(data_dir)
        fault = Fault(mode, at, NAMES)
        kernel, error = await boot_with(fault, data_dir, start_s)
        assert await left_behind(data_dir, before) == {}, f"{mode} at suspension {at}"
        assert_nothing_of_it_is_left(kernel, data_dir)
        if not fault.struck and mode == "hang" and error is not None:
            at, start_s = at - 1, 2 * start_s  # this machine took longer than that before the fault was due
            continue
        if not fault.struck:
            assert error is None
            return at - 1
        assert kernel.state == ("stopped" if error is None else "failed")
        if mode in ("cancel", "storm"):
            assert error is None or isinstance(error, asyncio.CancelledError), f"at {at}: {error!r}"
        elif error is not None:
            assert isinstance(error, BootFailed)
            assert error.rollback == ""


LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(("mode", "at_least"), [("cancel", 40), ("storm", 40), ("raise", 15), ("hang", 15)])
def test_a_fault_at_each_await_leaves_nothing(
    tmp_path: Path, mode: Mode, at_least: int, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    tmp_path.chmod(0o700)
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(every_fault(mode, tmp_path)) >= at_least
