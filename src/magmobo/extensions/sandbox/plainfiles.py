"""Files of /proc and of control groups, without pathlib and the layers of Python's files: what the zygote or its child
touches at a fork, each worker has memory of its own for. Boundary: short files, written by one call.
"""

from __future__ import annotations

import os

_MOST_BYTES = 4096


def read(path: str) -> str:
    """The first 4 KiB. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST_BYTES).decode()
    finally:
        os.close(descriptor)


def write(path: str, text: str) -> None:
    """Into a file that is there. Raises: OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
