"""Names: whose entry, of which tenant, under which key. Two that differ never meet, in memory or in Redis.

In memory a name is a tuple. In Redis it is text in which every part is preceded by its length, so that no character in
an owner, a tenant or a key can move the border between them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "mag:cache:"
CHANNEL = PREFIX + "invalidations"
EVERYTHING = PREFIX + "e"
"""The token that every value in Redis depends on."""


class Name(NamedTuple):
    """The full name of an entry; `tenant` is "" for data that belongs to all."""

    owner: str
    tenant: str
    key: str


def value_key(name: Name) -> bytes:
    """Where the value lies in Redis."""
    return _joined("v", *name)


def self_token_key(name: Name) -> bytes:
    """The token by which the value alone is invalidated."""
    return _joined("k", *name)


def tag_token_keys(name: Name, tag: str) -> tuple[bytes, bytes]:
    """The tokens by which a tag is invalidated: of this tenant, and of all tenants."""
    return _joined("t", name.owner, name.tenant, tag), _joined("a", name.owner, tag)


def _joined(kind: Literal["v", "k", "t", "a"], *parts: str) -> bytes:
    text = PREFIX + kind + "".join(f":{len(part)}:{part}" for part in parts)
    return text.encode("utf-8", "surrogatepass")
