"""Keys and values as they are stored: what is taken, and how it becomes bytes. No I/O."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from magmobo.contracts.errors import StateValueRefused
from magmobo.kernel.state.errors import StateDamaged

MAX_KEY_CHARACTERS = 200
MAX_VALUE_BYTES = 1_048_576


def checked_key(key: str) -> str:
    """The key itself. Raises: StateValueRefused."""
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise StateValueRefused(key[:40], f"the key has {len(key)} characters, 1 to {MAX_KEY_CHARACTERS} are allowed")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise StateValueRefused(ascii(key), "the key is not valid Unicode") from error
    return key


def encoded(key: str, value: Any) -> bytes:
    """`value` as JSON. Raises: StateValueRefused when JSON cannot say it, or when it is too large."""
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise StateValueRefused(key, f"JSON cannot say it ({type(error).__name__})") from error
    if len(text) > MAX_VALUE_BYTES:
        raise StateValueRefused(key, f"it is {len(text)} bytes as JSON, {MAX_VALUE_BYTES} are allowed")
    # The encoder writes NaN and infinity as null, and null would be read back as None.
    if b"null" in text and _has_no_number(msgspec.to_builtins(value, str_keys=True)):
        raise StateValueRefused(key, "JSON has neither NaN nor infinity")
    return text


def decoded(text: bytes) -> Any:
    """What `encoded` was given, in JSON's own types. Raises: StateDamaged for what it never made."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateDamaged(f"the value of an entry is no JSON ({type(error).__name__})") from error


def _has_no_number(value: Any) -> bool:
    """Whether a float in here is no finite number."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case float(number) if not math.isfinite(number):
                return True
            case dict(items):
                waiting.extend(items.values())
            case list(items) | tuple(items) | set(items) | frozenset(items):
                waiting.extend(items)
    return False
