"""Texts about what the author's code did: bounded, able to travel, whatever that code made of `__str__`.

Boundary: never raises.
"""

from __future__ import annotations

import traceback
from typing import Any

MAX_LINE_CHARACTERS = 4000
MAX_MESSAGE_CHARACTERS = 500
MAX_FIELD_CHARACTERS = 1000
_TRACE_FRAMES = 8
_OURS = __file__.removesuffix("texts.py")


def said(value: Any, limit: int = MAX_FIELD_CHARACTERS) -> str:
    """A value as text."""
    try:
        return _sound(str(value)[:limit])
    except Exception:  # the author's own `__str__`
        return f"<{type(value).__name__}>"


def trace_of(error: BaseException) -> str:
    """Where in the author's code an error was raised: the end of it."""
    try:
        found = traceback.TracebackException.from_exception(error)
        theirs = [frame for frame in found.stack if not frame.filename.startswith(_OURS)]
        found.stack = traceback.StackSummary.from_list(theirs[-_TRACE_FRAMES:])
        return _sound("".join(found.format())[-MAX_LINE_CHARACTERS:])
    except Exception:  # as above, in a note or a cause
        return ""


def _sound(text: str) -> str:
    """Without lone surrogates, which cannot travel."""
    return text.encode("utf-8", "replace").decode()
