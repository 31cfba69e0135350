"""The files of the local vault: what the system refuses, who may read, and the lock; `kernel.durable` does the rest."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magmobo.contracts.errors import VaultUnavailable
from magmobo.kernel.durable import open_regular
from magmobo.kernel.vault.errors import VaultBusy, VaultKeyExposed

LOCK_TIMEOUT_S = 5.0
_PAUSE_S = 0.01


@contextmanager
def told() -> Iterator[None]:
    """What the system refuses, as a VaultUnavailable that names the file."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise VaultUnavailable(f"{where}{error.strerror or type(error).__name__}") from error


def signature_of(path: Path) -> tuple[int, ...] | None:
    """Equal as long as the file at `path` was not replaced or written; None when there is none. Raises: OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_private(path: Path, limit_bytes: int) -> bytes:
    """At most `limit_bytes` of a file that only its owner may read. Raises: VaultKeyExposed, OSError."""
    with open_regular(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        content = file.read(limit_bytes)
    if mode & 0o077:
        raise VaultKeyExposed(f"{path} has mode {stat.S_IMODE(mode):04o}")
    return content


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
