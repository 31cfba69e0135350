"""Removing the folder of an extension that is gone, however its worker left it.

A worker may nest folders deeper than any path may name, or close them to everybody. So nothing here recurses, keeps a
descriptor for each level or says a long path: what lies below a folder is moved beside it, then the folder is empty.
Boundary: the folder that this one lies in is the node's. Links are removed, never followed, also where a worker that is
being ended exchanges a folder for one meanwhile: then this fails, and is tried again.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; one that is not there is fine. Raises: OSError."""
    try:
        is_folder = stat.S_ISDIR(folder.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_folder:
        folder.unlink()
        return
    folder.chmod(0o700)
    top = os.open(folder, _FOLDER)
    try:
        while names := os.listdir(top):  # noqa: PTH208 - of a descriptor, not of a path
            for name in names:
                if _is_gone(top, name):
                    continue
                _lift(top, name)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _is_gone(parent: int, name: str) -> bool:
    """Remove a file; a folder is opened to us, and stays."""
    if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        _open_up(parent, name)
        return False
    os.unlink(name, dir_fd=parent)
    return True


def _open_up(parent: int, name: str) -> None:
    """On Linux by its descriptor: a mode that is set by a name follows a link that has come in the folder's place."""
    if sys.platform != "linux":
        os.chmod(name, 0o700, dir_fd=parent, follow_symlinks=False)
        return
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{descriptor}").chmod(0o700)
    finally:
        os.close(descriptor)


def _lift(top: int, name: str) -> None:
    """Empty a folder: its files go, its folders move up beside it."""
    inner = os.open(name, _FOLDER, dir_fd=top)
    try:
        for below in os.listdir(inner):  # noqa: PTH208
            if not _is_gone(inner, below):
                os.rename(below, os.urandom(16).hex(), src_dir_fd=inner, dst_dir_fd=top)
    finally:
        os.close(inner)
