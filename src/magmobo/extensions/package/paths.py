"""Which paths a package may hold: plain ASCII names below its root, the same on every file system.

Boundary: text alone. Invariant: a path that passes has no way to lead elsewhere, and no two that pass together mean one
file on a system that ignores case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from magmobo.extensions.package.errors import PackageRefused

MAX_PATH_CHARS = 200
MAX_PATH_DEPTH = 12
_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+@-]{0,98}[A-Za-z0-9_+@-])?")
COMPILED = (".so", ".pyd", ".dll", ".dylib", ".pyc", ".pyo")
"""Endings of what nobody can read before approving it."""


def path_problem(path: str) -> str | None:
    """Why a package may not hold a file of this path; None: it may."""
    shown = path[:80]
    if len(path) > MAX_PATH_CHARS or path.count("/") >= MAX_PATH_DEPTH:
        return f"the path {shown!r} is longer than {MAX_PATH_CHARS} characters or {MAX_PATH_DEPTH} names"
    if not all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        return f"the path {shown!r} is not names of letters, digits and _ . + @ - below the package, joined by /"
    if path.lower().endswith(COMPILED):
        return f"{shown} is compiled code; a package holds sources"
    return None


def check_paths(paths: Iterable[str]) -> None:
    """That no two of them mean one file, and none is a folder of another, also where case does not count.

    Raises: PackageRefused.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        folded = path.lower()  # ASCII, see path_problem
        parts = folded.split("/")
        parents = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        if folded in files or folded in folders or parents & files:
            raise PackageRefused(f"{path} is there twice, or is a file and a folder, where case does not count")
        files.add(folded)
        folders |= parents
