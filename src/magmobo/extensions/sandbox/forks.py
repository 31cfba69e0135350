"""Forking right into namespaces, which Python's own fork cannot: one system call, no process in between.

It does what Python and the C library do around a fork, for a process with one thread. Source: clone(2), and "Process
control" in the C API of Python (PyOS_BeforeFork and the two that follow it).
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from contextlib import suppress

from magmobo.extensions.sandbox import libc
from magmobo.extensions.sandbox.syscalls import Machine

_SET_TID, _CLEAR_TID = 0x01000000, 0x00200000
_GET_TID_ADDRESS = 40
# Looked up once, as in `libc.py`: a child that did it would pay for it in memory of its own.
_before, _after_in_parent, _after_in_child = (
    ctypes.pythonapi.PyOS_BeforeFork,
    ctypes.pythonapi.PyOS_AfterFork_Parent,
    ctypes.pythonapi.PyOS_AfterFork_Child,
)


def fork(machine: Machine, namespaces: int) -> int:
    """As os.fork, with the child in these new namespaces. Raises: OSError."""
    if not namespaces:
        return os.fork()
    flags, tid_at = namespaces | signal.SIGCHLD, _tid_address()
    if tid_at:
        flags |= _SET_TID | _CLEAR_TID
    tail = (0, tid_at, 0) if platform.machine() == "x86_64" else (0, 0, tid_at)
    _before()
    try:
        pid = libc.syscall(machine.numbers["clone"], flags, 0, *tail)
    except OSError:
        _after_in_parent()
        raise
    if pid:
        _after_in_parent()
    else:
        _after_in_child()
    return pid


def _tid_address() -> int:
    """Where the C library keeps the number of this thread, which is another one in the child; 0: it does not say."""
    address = ctypes.c_ulong(0)
    with suppress(OSError):
        libc.prctl(_GET_TID_ADDRESS, ctypes.addressof(address))
        if address.value and ctypes.c_int.from_address(address.value).value == os.getpid():
            return address.value
    return 0
