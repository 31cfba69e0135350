"""The files of the local vault: read with suspicion, replaced whole, written by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from magmobo.contracts.errors import VaultUnavailable
from magmobo.kernel.vault.errors import VaultBusy, VaultKeyExposed

LOCK_TIMEOUT_S = 5.0
_PAUSE_S = 0.01
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextmanager
def told() -> Iterator[None]:
    """What the system refuses, as a VaultUnavailable that names the file."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise VaultUnavailable(f"{where}{error.strerror or type(error).__name__}") from error


def make_folder(folder: Path) -> None:
    """A folder of the data folder, 0700, durable when this returns. Raises: OSError."""
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


def signature_of(path: Path) -> tuple[int, ...] | None:
    """Equal as long as the file at `path` was not replaced or written; None when there is none. Raises: OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """At most `limit_bytes` of a file; a link, a pipe or a device is none. Raises: OSError."""
    content, _ = _read(path, limit_bytes)
    return content


def read_private(path: Path, limit_bytes: int) -> bytes:
    """The same of a file that only its owner may read. Raises: VaultKeyExposed, OSError."""
    content, mode = _read(path, limit_bytes)
    if mode & 0o077:
        raise VaultKeyExposed(f"{path} has mode {stat.S_IMODE(mode):04o}")
    return content


def _read(path: Path, limit_bytes: int) -> tuple[bytes, int]:
    descriptor = os.open(path, _READ)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "this is no regular file", str(path))
        return file.read(limit_bytes), found.st_mode


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` (0600): after a crash at any moment it holds the old content or the new. Raises: OSError.

    One process writes at a time; what a killed one left beside is written over.
    """
    beside = path.with_name(f".{path.name}.tmp")
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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path` against other processes. Raises: VaultBusy, OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline_s = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise VaultBusy("another process holds its lock") from None
                time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)
