"""Keeps secrets out of whatever is about to be written.

Two nets: values under a name that sounds secret are replaced whole, and text is searched for passwords in URLs,
connection strings and authorization headers. Depth and size are bounded; the input is never changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from magmobo.contracts.secret import Secret

HIDDEN = "***"
MAX_DEPTH = 6
MAX_TEXT_CHARS = 16_384
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|secret|token|authorization|credential|cookie|api_?key|private_?key|^dsn$|^conninfo$",
    re.IGNORECASE,
)
# Each is linear, or bounded, in the length of a text that an attacker may have chosen. A quote may be left open.
_URL = re.compile(
    r"\w://\S+"
)  # with whatever follows up to a blank: passwords hold anything, and may be tokens of 2 KiB
_USER = re.compile(r"(\w://[^\s:/@]*):.*", re.DOTALL)
_ASSIGNMENT = re.compile(
    r"((?:password|passwd|secret|token)[\"']?\s{0,4}[=:]\s{0,4})"
    r"('(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s,;&'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9+/_.=~-]{8,}", re.IGNORECASE)
_SECRET_TEXT = ((_ASSIGNMENT, rf"\1{HIDDEN}"), (_HEADER, rf"\1{HIDDEN}"))
_BEYOND_CHARS = 4_096  # read past the cut, so that a secret is whole when it is looked for


def redact(value: Any, name: str = "", depth: int = 0) -> Any:
    """A copy of `value` that is safe to write and that JSON can hold. `name` is the key it stands under."""
    if name and _SECRET_NAME.search(name) and value is not None and not isinstance(value, bool):
        return HIDDEN
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Secret):
        return HIDDEN
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): redact(item, str(key), depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(item, "", depth + 1) for item in value]
    return redact_text(_text_of(value))


def redact_text(text: str) -> str:
    """`text` without the passwords in it, and not longer than 16 Ki characters."""
    too_long, text = len(text) > MAX_TEXT_CHARS, text[: MAX_TEXT_CHARS + _BEYOND_CHARS]
    text = _URL.sub(_without_password, text)
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text[:MAX_TEXT_CHARS] + "…" if too_long else text


def _without_password(url: re.Match[str]) -> str:
    """`x://user:***@host`; the password goes up to the last @, because one may stand in it."""
    before, at, after = url.group().rpartition("@")
    return _USER.sub(rf"\1:{HIDDEN}", before, count=1) + at + after


def _text_of(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a broken `__repr__` must not cost the log line
        return f"<{type(value).__name__}, unprintable: {type(error).__name__}>"
