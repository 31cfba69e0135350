"""Files that the kernel's subsystems keep: read with suspicion, replaced whole, durable when a call returns.

Boundary: blocking I/O, so it is called from threads, or before there is a loop; what a refusal of the system means is
for the caller to say.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".tmp"
"""How the name of a file that is being written ends; one that stays was left by a kill."""


def make_folder(folder: Path) -> None:
    """A folder of mode 0700 that outlives a crash; its parent is there. Raises: OSError."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> BinaryIO:
    """A file to read. A link, a pipe or a device is refused, and not waited for. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # first: of a folder no file can be made, that would close it
        os.close(descriptor)
        raise OSError(errno.EINVAL, "this is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """The content of a file; a larger one is refused. Raises: OSError."""
    with open_regular(path) as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` (0600): after a crash at any moment it holds the old content or the new. Raises: OSError.

    One process writes at a time; what a killed one left beside is written over.
    """
    beside = path.with_name(f".{path.name}{UNFINISHED}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(beside, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # what lay there may have been made by somebody else
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        beside.rename(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    sync_folder(path.parent)
