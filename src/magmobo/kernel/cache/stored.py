"""A value as it lies in Redis: the tokens it depends on, then what is needed to know it again. No I/O.

A value is valid while every token it was stored under is still there: one for everything, one of its own, and two for
each of its tags. Whoever invalidates removes a token; a value that is written late carries the token that is gone, so
nothing can bring it back. A token that Redis drops costs a load, never a wrong value, for a new token is a new one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from magmobo.kernel.cache.keys import EVERYTHING, Name, self_token_key, tag_token_keys

TOKEN_BYTES = 16
_FORMAT = 1


class Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part behind the tokens. The name is repeated, so that a value that was copied to another key is not taken."""

    format: int
    owner: str
    tenant: str
    key: str
    tags: tuple[str, ...]
    stale_ms: int
    value: bytes


_decoder = msgspec.msgpack.Decoder(Stored)


def new_token() -> bytes:
    """16 bytes that nobody made before."""
    return os.urandom(TOKEN_BYTES)


def token_keys(name: Name, tags: Sequence[str]) -> list[bytes]:
    """The tokens that a value depends on, in the order in which it carries them."""
    keys = [EVERYTHING.encode(), self_token_key(name)]
    for tag in tags:
        keys += tag_token_keys(name, tag)
    return keys


def body_of(name: Name, value: bytes, tags: tuple[str, ...], stale_ms: int) -> bytes:
    """What stands behind the tokens."""
    return msgspec.msgpack.encode(Stored(_FORMAT, *name, tags, stale_ms, value))


def parsed(name: Name, content: object) -> tuple[list[bytes], Stored] | None:
    """Tokens and the rest, None for anything that was not stored under this name by this version."""
    if not isinstance(content, bytes) or not content:
        return None
    end = 1 + content[0] * TOKEN_BYTES
    try:
        stored = _decoder.decode(memoryview(content)[end:])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if stored.format != _FORMAT or Name(stored.owner, stored.tenant, stored.key) != name:
        return None
    if content[0] != len(token_keys(name, stored.tags)) or stored.stale_ms < 0:
        return None
    return [content[start : start + TOKEN_BYTES] for start in range(1, end, TOKEN_BYTES)], stored
