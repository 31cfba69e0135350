"""The state file as a database: the only module that touches SQLite. Synchronous; one connection, one thread at a time.

One table holds everything, each row with a checksum of its own, because SQLite notices damage to its structure but not
to the bytes in it. Two kinds of rows no caller can name, since owners and keys are never empty: `(owner, "")` holds the
highest version among the removed keys of that owner; `("", "")` counts the commits, and sums the checksums of all other
rows, so that a page which went back to an older state is found too.
Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_quick_check
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from magmobo.contracts.errors import StateUnavailable, VersionConflict
from magmobo.kernel.durable import sync_folder
from magmobo.kernel.state.errors import StateDamaged, StateTooNew
from magmobo.kernel.state.files import Mark, check_writable, make_private, sync_file

if TYPE_CHECKING:
    import sqlite3

LAYOUT = 1
APPLICATION = 0x4D41_4753  # "MAGS"
LOCK_WAIT_S = 2.0
_SUM = 1 << 63
_TABLE = (
    "CREATE TABLE entries (owner TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL, PRIMARY KEY (owner, key)) WITHOUT ROWID"
)
_GET = "select value, version, checksum from entries where owner = ? and key = ?"
_LIST = "select key, value, version, checksum from entries where owner = ? and key >= ? and key > '' order by key"
_ALL = "select owner, key, value, version, checksum from entries"
_PUT = (
    "insert into entries (owner, key, value, version, checksum) values (?, ?, ?, ?, ?) on conflict (owner, key)"
    " do update set value = excluded.value, version = excluded.version, checksum = excluded.checksum"
)
_REMOVE = "delete from entries where owner = ? and key = ?"


class Row(Struct, frozen=True):
    """One stored entry; `value` is JSON, None once it is removed."""

    key: str
    value: bytes | None
    version: int


class Change(Struct, frozen=True):
    """What one call writes, all or none of it; a value of None removes. `expected_version` is that of its one key."""

    owner: str
    values: Mapping[str, bytes | None]
    expected_version: int | None = None


Outcome = Sequence[Row] | VersionConflict
"""What a change did: a row by key in the order of the change, version 0 where nothing was there to remove."""


class Database:
    """One connection to an existing, sound state file. Raises: StateUnavailable and its kinds, from every method."""

    def __init__(self, path: Path, *, mode: Literal["rw", "ro"] = "rw") -> None:
        with translated():
            if mode == "rw":
                check_writable(path)
            _check_header(path)
            self._connection = _connect(path, mode)
            try:
                _check_layout(self._connection)
                if mode == "rw":
                    self._connection.execute("pragma synchronous = full")
            except BaseException:
                self._connection.close()
                raise
        self._mark: Mark | None = None

    def verify(self) -> int:
        """Look at every page and every row; how many commits the file has seen. Raises: StateDamaged too."""
        with translated(), _transaction(self._connection, "deferred"):
            found = [text for (text,) in self._connection.execute("pragma quick_check(1)")]
            if found != ["ok"]:
                raise StateDamaged(str(found[0]).splitlines()[0])
            commits, expected = self._totals()
            total = 0
            for owner, key, value, version, checksum in self._connection.execute(_ALL):
                _check_row(owner, key, value, version, checksum)
                total += checksum if owner else 0
            if total % _SUM != expected:
                raise StateDamaged("rows are missing or older than they should be")
            return commits

    def forget_pages(self) -> None:
        """Read from the file from now on, so that damage done to it since it was checked is found."""
        with translated():
            self._connection.execute("pragma shrink_memory")

    def keep_mark(self, path: Path) -> None:
        """From now on note each commit beside the file."""
        with translated():
            self._mark = Mark(path)
            self._mark.write(self._totals()[0])

    def close(self) -> None:
        """Let go of the file; the last connection to close also empties the write-ahead log."""
        if self._mark is not None:
            self._mark.close()
        with translated():
            self._connection.close()

    # ------------------------------------------------------------ reading

    def get(self, owner: str, key: str) -> Row | None:
        """One entry."""
        with translated():
            found = self._connection.execute(_GET, (owner, key)).fetchone()
            return None if found is None else _row(owner, key, *found)

    def entries(self, owner: str, prefix: str) -> Sequence[Row]:
        """Entries whose key starts with `prefix`, by key."""
        with translated(), _closed(self._connection.execute(_LIST, (owner, prefix))) as found:
            return [_row(owner, *row) for row in takewhile(lambda row: row[0].startswith(prefix), found)]

    def copy_to(self, target: Path) -> None:
        """Everything, as it is at one moment, in a new file of its own that needs no companions."""
        with translated():
            make_private(target)
            copy = _connect(target, "rw")
            try:
                self._connection.backup(copy)
            finally:
                copy.close()
            sync_file(target)

    # ------------------------------------------------------------ writing

    def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Make all changes in one transaction; durable when this returns. A conflict concerns its own change only."""
        with translated(), _transaction(self._connection, "immediate") as transaction:
            commits, total = self._totals()
            outcomes: list[Outcome] = []
            for change in changes:
                outcome, difference = self._apply(change)
                outcomes.append(outcome)
                total += difference
            if self._connection.total_changes == transaction.changes_before:
                return outcomes
            self._put("", "", b"%d" % (total % _SUM), commits + 1)
            transaction.commit()
        if self._mark is not None:
            self._mark.write(commits + 1)
        return outcomes

    def _apply(self, change: Change) -> tuple[Outcome, int]:
        """Raises nothing of its own once it has begun to write, so a change is never half made."""
        rows: list[Row] = []
        total = 0
        for key, value in change.values.items():
            version, checksum = self._present(change.owner, key)
            if change.expected_version not in (None, version):
                return VersionConflict(key, change.expected_version or 0, version), 0
            if value is not None:
                version = version + 1 if version else self._floor(change.owner) + 1
                total += self._put(change.owner, key, value, version) - checksum
            elif version:
                total += self._remove(change.owner, key, version) - checksum
            rows.append(Row(key, value, version))
        return rows, total

    def _put(self, owner: str, key: str, value: bytes, version: int) -> int:
        checksum = _checksum(owner, key, value, version)
        self._connection.execute(_PUT, (owner, key, value, version, checksum))
        return checksum

    def _remove(self, owner: str, key: str, version: int) -> int:
        """Remove, and raise the floor below which no new key of the owner begins; what this adds to the sum."""
        self._connection.execute(_REMOVE, (owner, key))
        floor, checksum = self._present(owner, "")
        return self._put(owner, "", b"", version) - checksum if version > floor else 0

    def _floor(self, owner: str) -> int:
        return self._present(owner, "")[0]

    def _present(self, owner: str, key: str) -> tuple[int, int]:
        """Version and checksum, both 0 when there is no such row."""
        found = self._connection.execute(_GET, (owner, key)).fetchone()
        if found is None:
            return 0, 0
        return _row(owner, key, *found).version, found[2]

    def _totals(self) -> tuple[int, int]:
        """Commits so far, and the sum of the checksums of all other rows."""
        found = self._connection.execute(_GET, ("", "")).fetchone()
        if found is None:
            raise StateDamaged("its count of commits is missing")
        row = _row("", "", *found)
        return row.version, int(row.value or b"0")


def create(path: Path) -> None:
    """Make a new state file. It gets its name when it is complete, so a half-made one is never taken for it.

    Raises: StateUnavailable.
    """
    unfinished = path.with_name(path.name + ".new")
    with translated():
        make_private(unfinished)
        connection = _connect(unfinished, "rw")
        try:
            connection.execute("pragma synchronous = off")  # synced below, as a whole
            connection.execute(f"pragma application_id = {APPLICATION}")
            connection.execute(f"pragma user_version = {LAYOUT}")
            connection.execute(_TABLE)
            connection.execute(_PUT, ("", "", b"0", 0, _checksum("", "", b"0", 0)))
            connection.execute("pragma journal_mode = wal")
        finally:
            connection.close()
        sync_file(unfinished)
        unfinished.replace(path)
        sync_folder(path.parent)


@contextmanager
def translated() -> Iterator[None]:
    """Errors of SQLite and of the system become ours."""
    import sqlite3

    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(error) from error
    except OSError as error:
        raise StateUnavailable(error.strerror or type(error).__name__) from error


def _meaning(error: sqlite3.Error) -> StateUnavailable:
    import sqlite3

    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StateDamaged(str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StateUnavailable(f"another process holds the state file, for more than {LOCK_WAIT_S:g} s")
        case sqlite3.SQLITE_FULL:
            return StateUnavailable("the disk is full")
    return StateUnavailable(str(error))


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    import sqlite3

    address = f"{path.absolute().as_uri()}?mode={mode}"
    # The thread that opens and checks the file hands the connection that reads to another one.
    connection = sqlite3.connect(address, uri=True, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    return connection


def _text(found: bytes) -> str:
    """Text that is no longer UTF-8 must reach the checksum, which it cannot match."""
    return found.decode(errors="surrogateescape")


def _check_header(path: Path) -> None:
    """SQLite opens a file whose format it does not know for reading only, and then fails with the first write.

    Raises: StateDamaged, OSError.
    """
    with path.open("rb") as file:
        head = file.read(20)
    if not head.startswith(b"SQLite format 3\0") or head[18:] != b"\2\2":  # 2 is write-ahead log
        raise StateDamaged("it does not begin as a database does")


def _check_layout(connection: sqlite3.Connection) -> None:
    """Raises: StateDamaged, StateTooNew."""
    [(application,)] = connection.execute("pragma application_id")
    if application != APPLICATION:
        raise StateDamaged("it is no state file of MagMoBo")
    [(layout,)] = connection.execute("pragma user_version")
    if layout > LAYOUT:
        raise StateTooNew(layout, LAYOUT)
    made = [text for (text,) in connection.execute("select sql from sqlite_schema where sql is not null")]
    if layout != LAYOUT or made != [_TABLE]:
        raise StateDamaged("its tables are not the ones that were made")


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self.changes_before = connection, connection.total_changes

    def commit(self) -> None:
        self._connection.execute("commit")


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[_Transaction]:
    """What is not committed inside is taken back at the end."""
    connection.execute(f"begin {kind}")
    try:
        yield _Transaction(connection)
    finally:
        if connection.in_transaction:
            connection.execute("rollback")


@contextmanager
def _closed(cursor: sqlite3.Cursor) -> Iterator[Iterable[tuple[str, bytes, int, int]]]:
    try:
        yield cursor
    finally:
        cursor.close()


def _checksum(owner: str, key: str, value: bytes, version: int) -> int:
    names = owner.encode(), key.encode()
    head = b"%d %d %d %s%s" % (version, len(names[0]), len(names[1]), *names)
    return zlib.crc32(value, zlib.crc32(head))


def _row(owner: str, key: str, value: bytes, version: int, checksum: int) -> Row:
    _check_row(owner, key, value, version, checksum)
    return Row(key, value, version)


def _check_row(owner: str, key: str, value: bytes, version: int, checksum: int) -> None:
    """Raises: StateDamaged, also for a row whose values changed their types."""
    with suppress(TypeError, ValueError, AttributeError):
        if _checksum(owner, key, value, version) == checksum:
            return
    raise StateDamaged(f"an entry of {owner or 'the store itself'!r} does not match its checksum")
