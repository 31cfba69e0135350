"""Calls into the C library that Python has no function for, with errno turned into OSError.

Only the zygote, its children and tests import this. The GIL is kept during a call (`PyDLL`): whoever calls has one
thread, and nothing here blocks.
"""

from __future__ import annotations

import ctypes
import os

Argument = int | bytes | ctypes.Array[ctypes.c_char] | None

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _as_long(argument: Argument) -> object:
    """Variadic C takes an `int` unless told otherwise, and a pointer is wider than that."""
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def syscall(number: int, *arguments: Argument) -> int:
    """One system call by its number. Raises: OSError."""
    result = int(_libc.syscall(ctypes.c_long(number), *map(_as_long, arguments)))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *arguments: int) -> int:
    """prctl(2); what is not given is 0. Raises: OSError."""
    values = [*arguments, 0, 0, 0, 0][:4]
    result = int(_libc.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, values)))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def call(name: str, *arguments: Argument) -> int:
    """A function of the C library that answers -1 and errno when it fails. Raises: OSError."""
    result = int(getattr(_libc, name)(*map(_as_long, arguments)))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
