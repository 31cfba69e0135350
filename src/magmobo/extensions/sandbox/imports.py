"""What the zygote imports before it forks anything, and the folders that a worker therefore needs.

Extension modules of the standard library that link to shared libraries are imported here, because a worker's root
holds none of those libraries. Boundary: paths and imports; nothing is mounted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from magmobo.extensions.sandbox.root import Folder

_LINKED = ("asyncio", "bz2", "ctypes", "hashlib", "lzma", "sqlite3", "ssl", "zlib")
_USUAL = (
    "collections.abc", "contextlib", "csv", "dataclasses", "datetime", "decimal", "email.message", "encodings.idna",
    "enum", "fractions", "functools", "hmac", "html", "inspect", "itertools", "json", "logging", "math", "operator",
    "pathlib", "random", "re", "secrets", "statistics", "string", "tempfile", "textwrap", "traceback", "typing",
    "unicodedata", "urllib.parse", "uuid", "zoneinfo",
)  # fmt: skip
_PACKAGES = ("magx", "msgspec", "uvloop")
_TIME_ZONES = "/usr/share/zoneinfo"
_OTHERS_FOLDERS = ("site-packages", "dist-packages")


def load(runtime: str) -> ModuleType:
    """Import what workers share, and the module of the runtime, which it returns. Raises: ImportError."""
    for name in (*_LINKED, *_USUAL, "uvloop"):
        with suppress(ImportError):  # Python can be built without some of them
            importlib.import_module(name)
    return importlib.import_module(runtime.partition(":")[0])


def folders(standard: Sequence[str]) -> list[Folder]:
    """Folders that a worker may read: the standard library (`standard`, of the import path), the packages that the
    runtime is made of, and time zones.
    """
    found: list[Folder] = []
    for path in standard:
        if Path(path).is_dir() and not any(_is_below(path, known.path) for known in found):
            hidden = tuple(f"{path}/{name}" for name in _OTHERS_FOLDERS if Path(path, name).is_dir())
            found.append(Folder(path, os.path.realpath(path), holds_libraries=True, hides=hidden))
    for name in _PACKAGES:
        if (module := sys.modules.get(name)) and module.__file__:
            path = str(Path(module.__file__).parent)
            found.append(Folder(path, os.path.realpath(path)))
    if Path(_TIME_ZONES).is_dir():
        found.append(Folder(_TIME_ZONES, os.path.realpath(_TIME_ZONES)))
    return found


def forget(standard: Sequence[str]) -> None:
    """Leave workers with the import path `standard` and without modules of the node. Ours go on with what they have
    imported; done here and not in each worker, it costs none of them memory of its own.
    """
    sys.path[:] = standard
    for path in [path for path in sys.path_importer_cache if path not in standard]:
        if not any(_is_below(path, folder) for folder in standard):
            del sys.path_importer_cache[path]
    for name in [name for name in sys.modules if name.partition(".")[0] == "magmobo"]:
        del sys.modules[name]


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
