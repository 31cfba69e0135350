"""The author's module, imported, and joined with the manifest beside it.

Boundary: the only place that imports code of an extension; a worker and `magx.testing` share it.
"""

from __future__ import annotations

import importlib
import os
import sys

from magx import manifest
from magx.extension import Extension


def load(folder: str, entry: str) -> Extension:
    """Import the author's module, and compare it with the manifest beside it.

    Raises: Mismatch, TypeError when `entry` names no `Extension`, and whatever the module raises.
    """
    vendor = f"{folder}/vendor"
    sys.path[:0] = [folder, vendor] if os.path.isdir(vendor) else [folder]  # noqa: PTH112 - pathlib costs 200 KB here
    name, _, attribute = entry.partition(":")
    extension = getattr(importlib.import_module(name), attribute)
    if not isinstance(extension, Extension):
        raise TypeError(f"{entry} is a {type(extension).__name__}, not an Extension")
    beside = manifest.read(folder)
    if beside is not None:
        manifest.join(extension, beside)
    return extension
