"""Folders outside of root's own that an unprivileged process of the node passes through, on a machine with other users.

Storage and extensions both keep such folders, and must judge them alike. Boundary: looks and makes, moves nothing.
Source: path_resolution(7), and the sticky bit of inode(7).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def make_passable(folder: Path) -> None:
    """Make a folder, and those above it, that others may pass through, not list, whatever the umask says; one that is
    there stays as it is. Ask `exchangeable_at` before as well as behind it: a folder that others exchange while it is
    made may be a link when its mode is set. Raises: OSError.
    """
    for one in (*reversed(folder.parents), folder):
        with suppress(FileExistsError):
            one.mkdir(mode=0o711)
            one.chmod(0o711)


def exchangeable_at(folder: Path) -> Path | None:
    """Where others than root and the caller's own user could exchange this folder or what is in it, None: nowhere.

    Whoever could might turn the next chown of a root node onto any file of the machine. A parent with the sticky bit
    (/tmp) is fine: there nobody renames what is another's. A folder that is not there is judged by those above it.
    Raises: OSError.
    """
    place = folder.resolve()
    for there in (place, *place.parents):
        try:
            found = there.stat()
        except FileNotFoundError:
            continue
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and (there == place or not found.st_mode & stat.S_ISVTX)
        if shared or found.st_uid not in (0, os.geteuid()):
            return there
    return None


def closed_at(folder: Path) -> Path | None:
    """The first folder on the way, with its end, that others may not pass; None: they come there. Raises: OSError."""
    place = folder.resolve()
    way = (*reversed(place.parents), place)
    return next((there for there in way if not there.stat().st_mode & stat.S_IXOTH), None)
