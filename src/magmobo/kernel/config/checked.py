"""A small JSON document that knows whether it is as it was written."""

from __future__ import annotations

from hashlib import sha256
from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")


class _Document(Struct, frozen=True):
    """`sha256` is of the bytes of `kept` as they stand there."""

    sha256: str
    kept: msgspec.Raw


def pack(value: Struct) -> bytes:
    """`value` as indented JSON with its checksum."""
    raw = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return msgspec.json.encode(_Document(sha256(raw).hexdigest(), msgspec.Raw(raw))) + b"\n"


def unpack(content: bytes, type_: type[T]) -> T:
    """What `pack` was given. Raises: ValueError for anything else."""
    document = msgspec.json.decode(content, type=_Document)
    if sha256(bytes(document.kept)).hexdigest() != document.sha256:
        raise ValueError("the checksum is wrong")
    return msgspec.json.decode(document.kept, type=type_)
