"""The minimal root: an empty file system that holds, read-only, what the interpreter loads, and nothing else.

Every folder keeps the path that it has outside, so the import path and what the node says of folders stay true. There
is no /proc and no /sys: nothing honest needs them, and a kernel does not let everyone mount a new /proc. Invariant:
behind `pivot` the host's files are not mounted any more. Source: pivot_root(2), mount_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from magmobo.extensions.sandbox import libc
from magmobo.extensions.sandbox.syscalls import Machine

_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_PROGRAMS = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2
_NEW, _OLD = "/proc", "/.old"
"""Where the new root is made, which is a folder that every machine has; and the old one while it is needed."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
TEMP = "/tmp"  # noqa: S108 -- of the worker's own file system
_FILES_PER_MIB = 256


class Folder(Struct, frozen=True):
    """A folder of the host. `path` is where it appears, `source` where it is, without symbolic links in between.
    `hides` are folders in it that appear empty.
    """

    path: str
    source: str
    is_writable: bool = False
    holds_libraries: bool = False
    hides: Sequence[str] = ()


def pivot(machine: Machine, folders: Sequence[Folder], temp_bytes: int, owner: tuple[int, int]) -> None:
    """Exchange the root of this process, which has a mount namespace of its own. A folder that lies in another comes
    behind it; `owner` is the uid and gid that /tmp belongs to. Raises: OSError.
    """
    os.umask(0o022)
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    _mount("none", _NEW, "tmpfs", _NO_SUID | _NO_DEVICES, "size=1m,nr_inodes=1k,mode=755")
    os.chdir(_NEW)
    os.mkdir("." + _OLD, 0o700)  # noqa: PTH102 -- see `_make`
    libc.syscall(machine.numbers["pivot_root"], b".", b"." + _OLD.encode())
    os.chdir("/")
    _mount_temp(temp_bytes, owner)  # before the others, some of which may lie below it
    for folder in folders:
        _bind(folder)
    for hidden in (path for folder in folders for path in folder.hides):
        _mount(None, hidden, None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_PROGRAMS)
    _make("/dev")
    for device in DEVICES:
        os.close(os.open(device, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        _mount(_OLD + device, device, None, _BIND)
    libc.umount2(_OLD.encode(), _DETACH)
    os.rmdir(_OLD)  # noqa: PTH106
    _mount(None, "/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_PROGRAMS)
    os.umask(0o077)


def _mount_temp(size_bytes: int, owner: tuple[int, int]) -> None:
    _make(TEMP)
    files = max(64, size_bytes // 1_048_576 * _FILES_PER_MIB)
    options = f"size={size_bytes},nr_inodes={files},mode=700,uid={owner[0]},gid={owner[1]}"
    _mount("none", TEMP, "tmpfs", _NO_SUID | _NO_DEVICES | _NO_PROGRAMS, options)


def _bind(folder: Folder) -> None:
    _make(folder.path)
    _mount(_OLD + folder.source, folder.path, None, _BIND)
    flags = _NO_SUID | _NO_DEVICES
    flags |= 0 if folder.is_writable else _READ_ONLY
    flags |= 0 if folder.holds_libraries else _NO_PROGRAMS
    _mount(None, folder.path, None, _REMOUNT | _BIND | flags)
    for hidden in folder.hides:
        _mount("none", hidden, "tmpfs", _NO_SUID | _NO_DEVICES | _NO_PROGRAMS, "size=64k,nr_inodes=64,mode=755")


def _make(folder: str) -> None:
    """A folder with those above it, which nobody writes to: where they lie in /tmp, that is the worker's own. Without
    pathlib, whose objects each worker would have memory of its own for.
    """
    at = 0
    while at >= 0:
        at = folder.find("/", at + 1)
        with suppress(FileExistsError):
            os.mkdir(folder if at < 0 else folder[:at], 0o555)  # noqa: PTH102


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    try:
        libc.mount(_coded(source), target.encode(), _coded(kind), flags, _coded(options))
    except OSError as error:
        raise OSError(error.errno, f"mounting {target}: {error.strerror}") from error


def _coded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
