"""Landlock: which files a process may reach, by folders, whatever its user and its mount namespace say.

Invariant: every right that this kernel's version can take is taken; what is given back is reading below `readable`,
and ordinary work with files below `writable` (no links, no sockets, no devices). Metadata (`stat`) is not covered by
Landlock. Source: the kernel's Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable

from magmobo.extensions.sandbox import libc
from magmobo.extensions.sandbox.syscalls import Machine

_VERSION_FLAG, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
_RIGHTS = 16
_NETWORK, _SCOPES = 0b11, 0b11
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE


def version(machine: Machine) -> int:
    """What this kernel has of Landlock; 0: nothing, or it is switched off."""
    try:
        return libc.syscall(machine.numbers["landlock_create_ruleset"], None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(machine: Machine, readable: Iterable[str], writable: Iterable[str]) -> None:
    """Take everything from this process but these files and folders, for good. Raises: OSError."""
    abi = version(machine)
    if not abi:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock")
    handled = (1 << _RIGHTS_BY_VERSION.get(abi, _RIGHTS)) - 1
    sizes = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = struct.pack("QQQ", handled, _NETWORK, _SCOPES)[:sizes]
    ruleset = libc.syscall(machine.numbers["landlock_create_ruleset"], attributes, sizes, 0)
    try:
        for paths, rights in ((readable, _READ), (writable, _WRITE)):
            for path in paths:
                _give(machine, ruleset, path, rights & handled)
        libc.syscall(machine.numbers["landlock_restrict_self"], ruleset, 0)
    finally:
        os.close(ruleset)


def _give(machine: Machine, ruleset: int, path: str, rights: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= _OF_FILES
        attributes = struct.pack("=Qi", rights, beneath)
        libc.syscall(machine.numbers["landlock_add_rule"], ruleset, _PATH_BENEATH, attributes, 0)
    finally:
        os.close(beneath)
