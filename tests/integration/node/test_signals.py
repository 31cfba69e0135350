"""SIGHUP with real terminals: it reloads while the terminal is there, and where there never was one; it drains when the
terminal has gone.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.node.harness import DEADLINE_S, environ

PROGRAM = Path(__file__).with_name("signal_program.py")
IN_A_TERMINAL = """\
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Program:
    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self.process, self._said = process, said

    def heard(self, *words: str, at_least: bool = False) -> None:
        """Wait until it has said exactly these, or these and maybe more."""
        deadline_s = time.monotonic() + DEADLINE_S
        while (found := self._words())[: len(words) if at_least else None] != [*words]:
            assert time.monotonic() < deadline_s, (found, words)
            time.sleep(0.01)

    def _words(self) -> list[str]:
        return self._said.read_text().split() if self._said.exists() else []

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def running(process: subprocess.Popen[bytes], said: Path) -> Iterator[Program]:
    try:
        yield Program(process, said)
    finally:
        process.kill()
        process.wait()


@contextmanager
def in_a_terminal(tmp_path: Path, before: str) -> Iterator[tuple[Program, int]]:
    """The program in the foreground of a terminal of its own, and our end of that; `before` is what SIGHUP does."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", IN_A_TERMINAL, before, str(PROGRAM), str(tmp_path / "said")]
    process = subprocess.Popen(command, env=environ(""), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    with running(process, tmp_path / "said") as program:
        yield program, ours


def test_a_terminal_that_is_there_reloads_and_one_that_goes_drains(tmp_path: Path) -> None:
    with in_a_terminal(tmp_path, "SIG_DFL") as (program, ours):
        program.heard("ready")
        program.hang_up()
        program.heard("ready", "reload")
        os.close(ours)
        assert program.process.wait(DEADLINE_S) == 0
        program.heard("ready", "reload", "stop")


def test_under_nohup_a_terminal_that_goes_reloads_at_most(tmp_path: Path) -> None:
    with in_a_terminal(tmp_path, "SIG_IGN") as (program, ours):
        program.heard("ready")
        program.hang_up()
        program.heard("ready", "reload")
        os.close(ours)
        program.heard("ready", "reload", "reload", at_least=True)
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("times", [1, 3])
def test_a_service_without_a_terminal_reloads(tmp_path: Path, times: int) -> None:
    command = [sys.executable, str(PROGRAM), str(tmp_path / "said")]
    process = subprocess.Popen(command, env=environ(""), start_new_session=True, stdin=subprocess.DEVNULL)
    with running(process, tmp_path / "said") as program:
        program.heard("ready")
        for number in range(times):
            program.hang_up()
            program.heard("ready", *["reload"] * (number + 1))
