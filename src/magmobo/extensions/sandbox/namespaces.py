"""Namespaces: a worker with no network, no other processes to see, no shared memory of others.

A worker is forked into its pid namespace, and where the node is not root into its user namespace as well; it leaves the
others by itself. Source: namespaces(7), user_namespaces(7), pid_namespaces(7).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from magmobo.extensions.sandbox import libc, plainfiles

MOUNTS, HOST_NAME, IPC, USER, PIDS, NETWORK = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_HOST_NAME = b"extension"


def isolate(*, with_mounts: bool) -> None:
    """No network, host name, System V IPC, and on demand mounts, of others. Raises: OSError.

    Podman lets containers make namespaces, and refuses this name all the same: a worker then sees the container's.
    """
    libc.unshare(NETWORK | IPC | HOST_NAME | (MOUNTS if with_mounts else 0))
    with suppress(OSError):
        libc.sethostname(_HOST_NAME, len(_HOST_NAME))


def map_self(uid: int, gid: int) -> None:
    """In a new user namespace: stay who one was, and know nobody else. Raises: OSError."""
    plainfiles.write("/proc/self/setgroups", "deny")
    plainfiles.write("/proc/self/uid_map", f"{uid} {uid} 1")
    plainfiles.write("/proc/self/gid_map", f"{gid} {gid} 1")


def enter_as_root() -> None:
    """Move this process, which is root without the capability for namespaces, into a user namespace where it has that.
    Every id stays itself, which a child outside has to write. Raises: OSError.
    """
    reading, writing = os.pipe()
    target = os.getpid()
    writer = os.fork()
    if not writer:
        os.close(writing)
        os.read(reading, 1)
        os._exit(_map_all(target))
    os.close(reading)
    try:
        libc.unshare(USER)
    finally:
        os.close(writing)
        _, status = os.waitpid(writer, 0)
    if status:
        raise PermissionError(
            errno.EPERM, "a map of all ids, for which root needs the capabilities SETUID, SETGID, SETFCAP"
        )


def _map_all(target: int) -> int:
    """Map every id that there is onto itself. 0, or 1 when the kernel refused."""
    try:
        for kind in ("uid_map", "gid_map"):
            ours = Path(f"/proc/self/{kind}").read_text().split()
            extents = zip(ours[0::3], ours[2::3], strict=True)
            plainfiles.write(
                f"/proc/{target}/{kind}", "\n".join(f"{first} {first} {count}" for first, count in extents)
            )
    except OSError:
        return 1
    return 0
