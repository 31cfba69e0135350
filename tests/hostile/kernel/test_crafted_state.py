"""State files that somebody made with care: right checksums, right sums, and something else in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from magmobo.contracts.errors import StateUnavailable
from magmobo.kernel.state.database import _checksum
from magmobo.kernel.state.manager import StateManager
from magmobo.kernel.state.offline import read_offline


def put(connection: sqlite3.Connection, value: object, *, key: object = "head", version: object = 1) -> None:
    """An entry with a checksum that fits, and the sum over all that fits."""
    crc = _checksum("audit", "head", value if isinstance(value, bytes) else str(value).encode(), 1)
    connection.execute("delete from entries where owner = 'audit'")
    connection.execute("insert into entries values ('audit', ?, ?, ?, ?)", (key, value, version, crc))
    total = b"%d" % crc
    connection.execute(
        "update entries set value = ?, version = 1, checksum = ? where owner = ''", (total, _checksum("", "", total, 1))
    )


CRAFTED: dict[str, Callable[[sqlite3.Connection], object]] = {
    "deep JSON": lambda c: put(c, b"[" * 100_000 + b"]" * 100_000),
    "no JSON": lambda c: put(c, b"{nobody"),
    "no UTF-8": lambda c: put(c, b'"\xff\xfe"'),
    "a number beyond all": lambda c: put(c, b"1e999"),
    "text for bytes": lambda c: put(c, '{"seq": 1}'),
    "a version that is no whole number": lambda c: put(c, b"{}", version=1.5),
    "a key of bytes": lambda c: put(c, b"{}", key=b"head"),
    "a trigger": lambda c: c.execute(
        "create trigger t after insert on entries begin delete from entries where owner = 'audit'; end"
    ),
    "a view": lambda c: c.executescript("alter table entries rename to e; create view entries as select * from e"),
    "one more table": lambda c: c.execute("create table more (x)"),
    "a generated column": lambda c: c.execute("alter table entries add column z as (hex(value) || owner)"),
    "somebody else's": lambda c: c.execute("pragma application_id = 1"),
    "a later layout": lambda c: c.execute("pragma user_version = 9"),
}


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A sound file with one entry."""
    states = StateManager(tmp_path / "state.db")
    await states.open()
    await states.scope("audit").put("head", {"seq": 1})
    await states.close()
    return states.path


@pytest.mark.parametrize("what", CRAFTED)
async def test_what_was_crafted_is_refused_or_harmless(path: Path, what: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    CRAFTED[what](connection)
    connection.close()
    try:
        entry = read_offline(path, "audit", "head")
        assert entry is None or entry.key == "head"
    except StateUnavailable:
        pass
    states = StateManager(path)
    try:
        await states.open()
        await states.scope("audit").get("head")
        await states.scope("audit").entries()
    except StateUnavailable:
        pass
    finally:
        await states.close()
