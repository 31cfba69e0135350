"""What is done so that workers share memory: a rehearsal before any is forked, and zeros given back by each."""

from __future__ import annotations

import subprocess
import sys

import pytest

from magx import runtime

REHEARSAL = """
import gc, logging, os, socket, sys, threading
from magx import runtime, wire

kept, pair = [], socket.socketpair

def listened_to():
    ours, theirs = pair()
    kept.append(os.dup(ours.fileno()))
    return ours, theirs

def state():
    return (
        sys.path[:], sys.stdout, sys.stderr, logging.root.handlers[:], logging.root.level, sys.dont_write_bytecode,
        len(os.listdir("/proc/self/fd")), threading.active_count(), "rehearsed" in sys.modules, gc.get_freeze_count(),
    )

before = state()
runtime.rehearse()
assert state() == before, (before, state())

socket.socketpair = listened_to
runtime.rehearse()
for descriptor in kept:
    for body in wire.Frames().feed(os.read(descriptor, 65_536)):
        print(type(wire.decode_from_worker(body)).__name__)
"""
ZEROS = """
import asyncio, os, socket
from magx import runtime

def resident_bytes():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))

async def served():
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.sendall(b"x" * 100_000)
    writer.write(await reader.readexactly(100_000))
    await writer.drain()
    writer.close()
    theirs.setblocking(True)
    return len(theirs.recv(100_000, socket.MSG_WAITALL))

resident_bytes()
loop = runtime._new_loop()
before_bytes = resident_bytes()
runtime._give_back_zeros(loop)
print(before_bytes - resident_bytes())
asyncio.set_event_loop(loop)
print(loop.run_until_complete(served()))
"""


def _said(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_rehearsal_ends_well_and_leaves_the_process_as_it_was() -> None:
    answers = ["Ready", "Done", "Done", "Pong", "Done", "Done", "Log", "Acked"]

    assert _said(REHEARSAL) == answers * 10


def test_a_loop_gives_back_its_zeros_and_works_on() -> None:
    given_back, served = map(int, _said(ZEROS))

    assert given_back > 150_000
    assert served == 100_000


@pytest.mark.parametrize("tail", [b"", b"y" * 9_000, b"y" * 9_000 + bytes(90_000)])
def test_giving_back_changes_nothing_of_an_object(tail: bytes) -> None:
    """Whatever is in it, and however little of that is zeros."""
    held = b"x" * 9_000 + bytes(200_000) + tail
    copied = bytearray(held)

    runtime._give_back_zeros(held)  # type: ignore[arg-type]

    assert held == copied
