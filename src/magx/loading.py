"""The author's module, imported, and joined with the manifest beside it.

Boundary: the only place that imports code of an extension; a worker and `magx.testing` share it.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from magx import manifest
from magx.extension import Extension


def load(folder: str, entry: str) -> Extension:
    """Import the author's module, and compare it with the manifest beside it.

    Raises: Mismatch, TypeError when `entry` names no `Extension`, and whatever the module raises.
    """
    vendor = f"{folder}/vendor"
    sys.path[:0] = [folder, vendor] if os.path.isdir(vendor) else [folder]  # noqa: PTH112 - pathlib costs 200 KB here
    name, _, attribute = entry.partition(":")
    extension = getattr(_module(folder, name), attribute)
    if not isinstance(extension, Extension):
        raise TypeError(f"{entry} is a {type(extension).__name__}, not an Extension")
    beside = manifest.read(folder)
    if beside is not None:
        manifest.join(extension, beside)
    return extension


def _module(folder: str, name: str) -> ModuleType:
    """The module of this name, by `import` unless it is one file of the folder: to look along the import path costs a
    worker 300 KB of memory that it would share, and most extensions are one file.
    """
    path = f"{folder}/{name}.py"
    if name in sys.modules or not os.path.isfile(path):  # noqa: PTH113 - as above
        return importlib.import_module(name)
    module = sys.modules[name] = ModuleType(name)
    module.__file__, module.__spec__ = path, ModuleSpec(name, None, origin=path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            exec(compile(file.read(), path, "exec"), module.__dict__)  # noqa: S102 - this is the worker's whole purpose
    except BaseException:
        del sys.modules[name]
        raise
    return module
