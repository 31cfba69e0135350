"""Names of table channels: `[private-]db.<schema>.<table>[;<column>=<value>]`.

Pusher allows few characters, so any other byte of the UTF-8 text, and `. ; = @` inside a part, is written `@hh` (hex).
The grammar alone lives here; who may subscribe is decided in `published.py`.
"""

from __future__ import annotations

import re

from msgspec import Struct

from magmobo.components.magws.errors import BadChannelName
from magmobo.components.magws.protocol.names import PRIVATE
from magmobo.contracts.planes import TableName

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_,")
_PART = r"(?:[-A-Za-z0-9_,]|@[0-9A-Fa-f]{2})"
_GRAMMAR = re.compile(rf"db\.({_PART}+)\.({_PART}+)(?:;({_PART}+)=({_PART}*))?\Z")
_ESCAPE = re.compile(r"@([0-9A-Fa-f]{2})")


class Filter(Struct, frozen=True):
    """Only rows whose column, old or new, shows this text."""

    column: str
    value: str


class TableChannel(Struct, frozen=True):
    """What a table channel's name says."""

    table: TableName
    private: bool
    filter: Filter | None = None


def parse(channel: str) -> TableChannel:
    """Read a name that `is_table_channel`.

    Raises: BadChannelName when the parts are missing, an escape is broken or the bytes are not UTF-8.
    """
    found = _GRAMMAR.match(channel.removeprefix(PRIVATE))
    if found is None:
        raise BadChannelName(channel, "expected [private-]db.<schema>.<table>[;<column>=<value>]")
    try:
        schema, table, column, value = (None if part is None else _unescape(part) for part in found.groups())
    except UnicodeDecodeError as error:
        raise BadChannelName(channel, "the escaped bytes are not UTF-8") from error
    chosen = None if column is None else Filter(column, value or "")
    return TableChannel(TableName(schema or "", table or ""), channel.startswith(PRIVATE), chosen)


def name_of(channel: TableChannel) -> str:
    """The name that `parse` reads back as the same channel."""
    name = f"db.{_escape(channel.table.schema)}.{_escape(channel.table.name)}"
    if channel.filter is not None:
        name += f";{_escape(channel.filter.column)}={_escape(channel.filter.value)}"
    return PRIVATE + name if channel.private else name


def _escape(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"@{byte:02x}" for byte in text.encode())


def _unescape(text: str) -> str:
    """Text without escapes is ASCII already, so latin-1 carries the bytes of the others."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1").decode()
