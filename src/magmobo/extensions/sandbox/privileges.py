"""Who a worker is to the kernel: a user of its own where the node is root, no capability, and never any more than that.

Source: capabilities(7), credentials(7), and the kernel's Documentation/userspace-api/no_new_privs.rst.
"""

from __future__ import annotations

import os
import signal
import struct
from contextlib import suppress
from pathlib import Path

from magmobo.extensions.sandbox import libc

_SET_DEATH_SIGNAL, _SET_DUMPABLE, _DROP_FROM_BOUND, _SET_NO_NEW_PRIVS, _AMBIENT, _CLEAR_ALL = 1, 4, 24, 38, 47, 4
_VERSION_3 = 0x20080522
SYS_ADMIN = 21
_CAPABILITIES = 64


def effective() -> int:
    """The capabilities that count for this process now, a bit each."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def has(capability: int) -> bool:
    """Whether this process has a capability, within its own user namespace."""
    return bool(effective() >> capability & 1)


def become(uid: int) -> None:
    """Take this uid and the gid of the same number, for good. Raises: OSError.

    The kernel then marks the process as not to be looked at, which would also keep the node from reading what it
    uses; nothing secret was in it before, so the mark is taken off.
    """
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc.prctl(_SET_DUMPABLE, 1)


def drop() -> None:
    """No capability, none to get back, none through any program. Raises: OSError."""
    with suppress(OSError):  # EINVAL behind the last; EPERM: the bound stays, and no_new_privs makes it mean nothing
        for capability in range(_CAPABILITIES):
            libc.prctl(_DROP_FROM_BOUND, capability)
    libc.prctl(_AMBIENT, _CLEAR_ALL)
    libc.capset(struct.pack("Ii", _VERSION_3, 0), bytes(24))
    libc.prctl(_SET_NO_NEW_PRIVS, 1)


def end_with_parent() -> None:
    """Have the kernel end this process when the thread that forked it ends. Raises: OSError."""
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
