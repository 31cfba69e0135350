"""A path for a Unix socket in a folder whose own path may be too long for one.

`sockaddr_un` holds 107 bytes and a data folder may lie deeper. Where the path is too long, the socket is named through
an open descriptor of its folder (`/proc/self/fd/7/control.sock`): bind and connect follow it, no other place has to be
recorded, cleaned up or protected.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magmobo.admin.errors import ControlPathTooLong

_LIMIT_BYTES = 107 if sys.platform == "linux" else 103


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """What to pass to bind or connect for the socket at `path`; good inside the block.

    Raises: OSError when the folder cannot be opened, ControlPathTooLong on a system without /proc.
    """
    if len(os.fsencode(path)) <= _LIMIT_BYTES:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise ControlPathTooLong(path, _LIMIT_BYTES)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
