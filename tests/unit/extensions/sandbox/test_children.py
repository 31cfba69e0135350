"""A signal to a child leaves how it ended to whoever waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from magmobo.extensions.sandbox.children import send_signal

IDLE = "import sys; sys.stdin.read()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", IDLE], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_one_that_lives_gets_it(child: subprocess.Popen[bytes]) -> None:
    send_signal(child, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_one_that_has_ended_unnoticed_is_not_reaped(child: subprocess.Popen[bytes]) -> None:
    os.kill(child.pid, signal.SIGSEGV)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    send_signal(child, signal.SIGKILL)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == -signal.SIGSEGV


def test_one_that_was_reaped_gets_none(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    os.kill(child.pid, signal.SIGKILL)
    child.wait()

    def kill(pid: int, number: int) -> None:
        pytest.fail(f"signal {number} to {pid}, whoever that is by now")

    monkeypatch.setattr(os, "kill", kill)
    send_signal(child, signal.SIGKILL)


def test_one_that_is_gone_and_nobody_knows_yet_is_fine(child: subprocess.Popen[bytes]) -> None:
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    assert child.returncode is None
    send_signal(child, signal.SIGKILL)
    child.returncode = -signal.SIGKILL
