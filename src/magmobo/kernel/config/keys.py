"""How a setting is named: the names on the way to it, joined by dots, with `[0]` for an item of a list.

`jwt.secret`, `apps[0].secret`; a name of another form than a bare key of TOML stands in quotes: `labels."a.b"`.
"""

from __future__ import annotations

import re

_BARE = r"[A-Za-z0-9_-]+"  # as text: a start that needs neither does not pay for compiling them
_STEP = r'"((?:[^"\\]|\\.)*)"|\[(\d+)\]|([^.\["]+)'


def joined(path: str, name: str) -> str:
    """The key of `name` inside of `path`, which may be empty."""
    spelled = name if name.isidentifier() or re.fullmatch(_BARE, name) else _quoted(name)
    return f"{path}.{spelled}" if path else spelled


def steps(key: str) -> list[str | int]:
    """The names and indexes that a key is made of, from the outside."""
    found = re.findall(_STEP, key)
    return [int(index) if index else name or _unquoted(quoted) for quoted, index, name in found]


def around(key: str) -> str:
    """The key of the table or list that `key` stands in; empty for a section."""
    ends = [match.start() for match in re.finditer(_STEP, key)]
    return key[: ends[-1]].removesuffix(".") if ends else ""


def _quoted(name: str) -> str:
    import json  # few names need it

    return json.dumps(name, ensure_ascii=not name.isprintable())


def _unquoted(text: str) -> str:
    import json

    return str(json.loads(f'"{text}"'))
