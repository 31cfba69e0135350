"""The bound on a worker's data folder, which is on the disk of everybody.

No file system that a plain user can mount is both durable and of a fixed size, so the folder is looked at while its
worker uses the CPU, and a worker that went over its bound is ended. Each file is bounded at once by a limit of the
kernel, so what it may take too much is what it writes between two looks. Files that are open and have no name count.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from magmobo.extensions.sandbox.worker import WorkerProcess

EVERY_S = 0.25
MAX_FILES = 10_000
_BLOCK_BYTES = 512


async def watch(worker: WorkerProcess) -> None:
    """Look at the worker's data folder until it ends, and end it when it takes too much."""
    folder, bound_bytes = worker.spec.data_dir, worker.spec.data_bytes
    if folder is None:
        return
    seen_ns = -1
    while worker.is_running:
        ran_ns = worker.ran_ns()
        if ran_ns != seen_ns:  # in ticks of the clock a worker would write many files before it used any time
            seen_ns = ran_ns
            if excess := await asyncio.to_thread(find_excess, folder, bound_bytes, worker.pid):
                worker.kill(f"its data folder: {excess}")
                return
        await asyncio.sleep(EVERY_S)


def find_excess(folder: Path, bound_bytes: int, pid: int | None = None) -> str:
    """What is too much in a folder, in words, or an empty text. `pid`: what that process holds open counts too."""
    total_bytes = _nameless_bytes(pid) if pid is not None else 0
    files = 0
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    total_bytes += _taken_bytes(entry)
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    if files > MAX_FILES:
                        return f"more than {MAX_FILES} files"
                    if total_bytes > bound_bytes:
                        return f"more than {bound_bytes} bytes"
        except FileNotFoundError:
            continue
        except OSError as error:  # a name that is too long, a folder that it closed to us
            return f"a part that cannot be looked at ({error.strerror})"
    return f"more than {bound_bytes} bytes" if total_bytes > bound_bytes else ""


def _taken_bytes(entry: os.DirEntry[str]) -> int:
    """What it takes on the disk; nothing if it has just gone. Raises: OSError."""
    try:
        return entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
    except FileNotFoundError:
        return 0


def _nameless_bytes(pid: int) -> int:
    """Bytes of files that the process has open and that are in no folder any more."""
    total_bytes = 0
    with suppress(OSError):
        for opened in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                status = opened.stat()
                if not status.st_nlink:
                    total_bytes += status.st_blocks * _BLOCK_BYTES
    return total_bytes
