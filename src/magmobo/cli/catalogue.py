"""Every error class of the installed MagMoBo, found by reading the modules and packages named `errors`."""

from __future__ import annotations

from importlib import import_module
from inspect import cleandoc
from pathlib import Path

import magmobo
from magmobo.contracts.errors import MagError


def error_classes() -> list[type[MagError]]:
    """All of them, in the order of their codes."""
    root = Path(magmobo.__file__).parent
    found: list[type[MagError]] = []
    for path in [*root.rglob("errors.py"), *root.rglob("errors/**/*.py")]:
        parts = path.relative_to(root).with_suffix("").parts
        module = import_module(".".join(("magmobo", *parts)).removesuffix(".__init__"))
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, MagError) and value.__module__ == module.__name__
        ]
    return sorted(found, key=lambda error: (error.code, error.__name__))


def cause_of(error: type[MagError]) -> str:
    """The docstring as one paragraph."""
    return " ".join(cleandoc(error.__doc__ or "").split())
