"""A new extension's folder, written from the templates beside this module.

A template is text with `{{id}}` and `{{name}}` in it; its path, without `.tmpl`, is that of the file. Boundary: writes
below the one folder it is given, and only where nothing was. Invariant: what it writes is a valid extension.
"""

from __future__ import annotations

import errno
import os
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

from magmobo.contracts.extensions import ExtensionId
from magmobo.extensions.package.errors import ScaffoldRefused

_ENDING = ".tmpl"
_HIDDEN = "dot_"
"""How the name of a template begins that becomes a hidden file."""


def scaffold(folder: Path, extension_id: str) -> list[str]:
    """Write a new extension; the paths of its files, in order. `folder` is not there yet, or is empty.

    Raises: ScaffoldRefused.
    """
    try:
        msgspec.convert(extension_id, ExtensionId)
    except msgspec.ValidationError as error:
        reason = (
            "an id is lower-case words of letters and digits joined by -, such as delay-alerts; at most 40 characters"
        )
        raise ScaffoldRefused(extension_id[:60], reason) from error
    texts = {path: _filled(text, extension_id) for path, text in sorted(templates().items())}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ScaffoldRefused(str(folder), "the folder is not empty")
        for path, text in texts.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ScaffoldRefused(str(folder), os.strerror(error.errno or errno.EIO).lower()) from error
    return list(texts)


def templates() -> dict[str, str]:
    """Path of each file of a new extension -> its text, placeholders in it."""
    found: dict[str, str] = {}
    _collect(files("magmobo.extensions.package") / "template", "", found)
    return found


def title_of(extension_id: str) -> str:
    """The name that a new extension has at first.

    >>> title_of("delay-alerts")
    'Delay alerts'
    """
    return extension_id.replace("-", " ").capitalize()


def _collect(folder: Traversable, below: str, found: dict[str, str]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _collect(entry, f"{below}{entry.name}/", found)
        elif entry.name.endswith(_ENDING):
            name = entry.name.removesuffix(_ENDING)
            plain = f".{name.removeprefix(_HIDDEN)}" if name.startswith(_HIDDEN) else name
            found[below + plain] = entry.read_text(encoding="utf-8")


def _filled(text: str, extension_id: str) -> str:
    return text.replace("{{id}}", extension_id).replace("{{name}}", title_of(extension_id))
