"""`mag` as a user runs it: a process, its two streams, its exit code. No test here knows the inside of a node."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60


def environ(components: str, **more: str) -> dict[str, str]:
    """A small environment of its own, in which the named test components are the node."""
    names = ",".join(f"tests.integration.node.parts:{name}" for name in components.split())
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "MAG_KERNEL__COMPONENTS": names, **more}


def mag(*arguments: str, cwd: Path, components: str = "Steady", **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "magmobo.cli.main", *arguments],
        cwd=cwd, env=environ(components, **more), capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def answer(*arguments: str, cwd: Path, **more: str) -> dict[str, Any]:
    """The JSON object that a command prints with --json."""
    found: dict[str, Any] = json.loads(mag(*arguments, "--json", cwd=cwd, **more).stdout)
    return found


class Up:
    """A `mag up` in the foreground."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ready(self) -> dict[str, Any]:
        """Wait for the JSON object of a ready node. Call it once."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended: {self.end()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def says(self, word: str) -> None:
        """Wait until a line on standard error is `word`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.strip() == word:
                return
        raise AssertionError(f"it never said {word!r}")

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; exit code and what was printed since."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err


@contextmanager
def up(*arguments: str, cwd: Path, components: str = "Steady", **more: str) -> Iterator[Up]:
    """`mag up --json` for the length of a block; killed at its end, and when a read would hang."""
    process = subprocess.Popen(
        [sys.executable, "-m", "magmobo.cli.main", "up", "--json", *arguments],
        cwd=cwd, env=environ(components, **more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    fuse = threading.Timer(DEADLINE_S, process.kill)
    fuse.start()
    try:
        yield Up(process)
    finally:
        fuse.cancel()
        process.kill()
        process.communicate()


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """The service manager's end at a path, or at an abstract name behind `@`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        door.settimeout(DEADLINE_S)
        yield door


def heard(door: socket.socket) -> str:
    return door.recv(4096).decode()
