"""Scopes of capabilities in words: tables, hosts, channels, topics; what each may look like, and which covers which.

Boundary: text alone. Source: `CapabilityRequest` in manifest.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

SCOPE_KINDS: Mapping[str, tuple[str, ...]] = {
    "database.read": ("tables",),
    "database.write": ("tables",),
    "database.admin": ("tables",),
    "network.outbound": ("hosts",),
    "realtime.broadcast": ("channels",),
    "realtime.register_channel": ("channels",),
    "realtime.subscribe_events": ("channels",),
    "api.emit_events": ("topics",),
    "auth.audit_access": ("topics",),
}
"""Which kinds of scope a capability takes; the others take none."""
REQUIRED_SCOPES = ("database.read", "database.write", "network.outbound", "realtime.broadcast")
"""Capabilities that mean nothing without naming what they are for."""
KINDS = ("tables", "hosts", "channels", "topics")
_EVERYTHING: Mapping[str, str] = {"channels": "*", "topics": "**"}
MAX_COLUMNS = 100
_IDENTIFIER = r"[^\W\d][\w$-]{0,62}"
_TABLE = re.compile(rf"({_IDENTIFIER})\.({_IDENTIFIER})(?:\(([^()]{{1,800}})\))?")
_COLUMN = re.compile(_IDENTIFIER)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(\*\.)?({_LABEL}(?:\.{_LABEL}){{0,10}})(?::([1-9][0-9]{{0,4}}))?")
_CHANNEL = re.compile(r"[-A-Za-z0-9_=@,.;]{0,163}(?:[-A-Za-z0-9_=@,.;]|\*)")
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_SYSTEM_SCHEMAS = ("information_schema", "mag")
_TABLE_CHANNELS = ("db.", "private-db.")


class TableScope(Struct, frozen=True):
    """A table and the columns of it that are meant; no columns: all."""

    schema: str
    name: str
    columns: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """`schema.name`."""
        return f"{self.schema}.{self.name}"


def parse_table(text: str) -> TableScope:
    """`schema.name` or `schema.name(column, …)`. Raises: ValueError, saying what would be right.

    >>> parse_table("public.flights(id, carrier)")
    TableScope(schema='public', name='flights', columns=('id', 'carrier'))
    """
    found = _TABLE.fullmatch(text)
    if found is None:
        raise ValueError("expected schema.name or schema.name(column, …), as the database spells them")
    schema, name, listed = found.groups()
    if schema in _SYSTEM_SCHEMAS or schema.startswith(("pg_", "ext_")):
        raise ValueError(f"schema {schema} belongs to the system or to another extension")
    columns = tuple(column.strip() for column in listed.split(",")) if listed else ()
    if len(columns) > MAX_COLUMNS or len(set(columns)) < len(columns) or not all(map(_COLUMN.fullmatch, columns)):
        raise ValueError(f"its columns are not up to {MAX_COLUMNS} different names, joined by commas")
    return TableScope(schema, name, columns)


def parse_host(text: str) -> tuple[str, int | None]:
    """Name (`*.` in front stands for any name below) and port. Raises: ValueError.

    >>> parse_host("*.example.com:8443")
    ('*.example.com', 8443)
    """
    found = _HOST.fullmatch(text)
    if found is None or len(found[2]) > 253:
        raise ValueError(
            "expected a host such as api.example.com, *.example.com or api.example.com:8443, in lower case"
        )
    wildcard, name, port = found.groups()
    if name.rpartition(".")[2].isdigit():
        raise ValueError("expected the name of a host, not an address")
    if wildcard and "." not in name:
        raise ValueError("`*.` needs a name of at least two parts behind it")
    if port and int(port) > 65_535:
        raise ValueError("ports go up to 65535")
    return (wildcard or "") + name, int(port) if port else None


def check_channel(text: str) -> None:
    """That this names a channel, or with `*` at its end several. Raises: ValueError."""
    if _CHANNEL.fullmatch(text) is None:
        raise ValueError("expected a channel of letters, digits and - _ = @ , . ; perhaps with * at the end")
    if text.startswith(_TABLE_CHANNELS):
        raise ValueError("what is sent on channels of tables are the tables' changes alone")


def topic_words(text: str) -> tuple[str, ...]:
    """The words of a topic or pattern: `*` stands for one word, `**` at the end for any number. Raises: ValueError."""
    words = tuple(text.split("."))
    for position, word in enumerate(words):
        last = position == len(words) - 1
        if not (_WORD.fullmatch(word) or word == "*" or (word == "**" and last)):
            raise ValueError("expected lower-case words joined by dots; * is one word, ** at the end any number")
    return words


def asked_for(capability: str, kind: str, named: Sequence[str]) -> Sequence[str]:
    """What a request for a capability means by the names of one kind. Naming no channels or topics where they may be
    left out means all, which is said in words: from here on an empty scope gives nothing.

    >>> asked_for("auth.audit_access", "topics", ())
    ['**']
    >>> asked_for("realtime.broadcast", "channels", ())
    []
    """
    may_be_left_out = kind in SCOPE_KINDS.get(capability, ()) and capability not in REQUIRED_SCOPES
    if not named and may_be_left_out and kind in _EVERYTHING:
        return [_EVERYTHING[kind]]
    return list(named)


def scope_problem(kind: str, text: str) -> str | None:
    """Why `text` is no scope of this kind; None: it is one."""
    check = {"tables": parse_table, "hosts": parse_host, "channels": check_channel, "topics": topic_words}[kind]
    try:
        check(text)
    except ValueError as error:
        return str(error)
    return None


def covers(kind: str, wide: str, narrow: str) -> bool:
    """Whether everything that `narrow` means, `wide` means too. Both are scopes of this kind.

    >>> covers("hosts", "*.example.com", "api.example.com")
    True
    >>> covers("tables", "public.flights(id)", "public.flights")
    False
    """
    if wide == narrow:
        return True
    match kind:
        case "tables":
            return _table_covers(parse_table(wide), parse_table(narrow))
        case "hosts":
            (host, port), (other, other_port) = parse_host(wide), parse_host(narrow)
            return port == other_port and (host == other or (host.startswith("*.") and other.endswith(host[1:])))
        case "channels":
            return wide.endswith("*") and narrow.startswith(wide[:-1])
        case _:
            return topic_covers(topic_words(wide), topic_words(narrow))


def topic_covers(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether every topic that the words of one pattern mean, those of the other mean too."""
    if wide[-1] == "**":
        head, rest = wide[:-1], narrow[: len(wide) - 1]
        return len(rest) == len(head) and "**" not in rest and _words_cover(head, rest)
    return len(wide) == len(narrow) and "**" not in narrow and _words_cover(wide, narrow)


def channel_in(scopes: Sequence[str], channel: str) -> bool:
    """Whether one of these scopes means a channel, whatever that is called."""
    return any(channel.startswith(one[:-1]) if one.endswith("*") else channel == one for one in scopes)


def topics_meet(words: Sequence[str], topic: str) -> bool:
    """Whether a pattern means a topic."""
    return topic_covers(words, topic.split("."))


def _words_cover(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return all(one in ("*", other) for one, other in zip(wide, narrow, strict=True))


def _table_covers(wide: TableScope, narrow: TableScope) -> bool:
    same = wide.table == narrow.table
    return same and (not wide.columns or (bool(narrow.columns) and set(narrow.columns) <= set(wide.columns)))
