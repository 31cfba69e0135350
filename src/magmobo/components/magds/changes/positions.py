"""Positions in the stream as text: commit LSN and sequence in the transaction, so that text order is commit order.

`0000000001a2b3c4.00000002` is the second change of the transaction whose commit record starts at that LSN; sequence 0
names everything before the LSN. Outside the change plane a position is opaque.
"""

from __future__ import annotations

import re

_PATTERN = re.compile(r"[0-9a-f]{16}\.[0-9a-f]{8}", re.ASCII)


def position_text(lsn: int, sequence: int = 0) -> str:
    """The position of one change, or with sequence 0 of everything before `lsn`."""
    return f"{lsn:016x}.{sequence:08x}"


def is_position(text: str) -> bool:
    """Whether `text` has the shape of a position."""
    return _PATTERN.fullmatch(text) is not None


def lsn_of(position: str) -> int:
    """The LSN of a well-formed position."""
    return int(position[:16], 16)


def lsn_from_text(text: str) -> int:
    """An LSN as Postgres writes it (`16/B374D848`).

    >>> hex(lsn_from_text("16/B374D848"))
    '0x16b374d848'
    """
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def lsn_text(lsn: int) -> str:
    """An LSN as Postgres reads it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
