"""Calls into the C library that Python has no function for, with errno turned into OSError.

Only the zygote, its children and tests call these. Functions are looked up once, when this is imported: what a child
looked up would be memory of its own. The GIL is kept during a call (`PyDLL`), because whoever calls has one thread and
nothing here blocks.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

Argument = int | bytes | None

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_as_long = ctypes.c_long


def syscall(number: int, *arguments: Argument) -> int:
    """One system call by its number. What the kernel writes to is given by its address. Raises: OSError."""
    # Variadic C takes an `int` unless told otherwise, and a pointer is wider than that.
    wide = (_as_long(one) if isinstance(one, int) else one for one in arguments)
    return _checked(int(_syscall(_as_long(number), *wide)))


def _function(name: str, *kinds: type) -> Callable[..., int]:
    if not hasattr(_libc, name):  # another system than Linux, where nobody asks for it
        return _missing
    function = getattr(_libc, name)
    function.argtypes = kinds
    return lambda *arguments: _checked(int(function(*arguments)))


def _missing(*_arguments: object) -> int:
    raise OSError("not a function of this system")


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


_unsigned = ctypes.c_ulong
unshare = _function("unshare", ctypes.c_int)
mount = _function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, _unsigned, ctypes.c_char_p)
umount2 = _function("umount2", ctypes.c_char_p, ctypes.c_int)
sethostname = _function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
capset = _function("capset", ctypes.c_char_p, ctypes.c_char_p)
_prctl = _function("prctl", ctypes.c_int, _unsigned, _unsigned, _unsigned, _unsigned)


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """prctl(2), whose other arguments are 0. Raises: OSError."""
    return _prctl(option, first, second, 0, 0)


def address_of(data: bytes) -> int:
    """Where these bytes are; they must outlive whoever is told."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
