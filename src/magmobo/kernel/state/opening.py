"""From whatever lies at the path of the state file to one that can be used, and what has to be said about it. And the
way back: a copy that can be put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from magmobo.kernel.state.database import Database, create, translated
from magmobo.kernel.state.errors import StateDamaged, StateVanished, StateWentBack
from magmobo.kernel.state.files import COMPANIONS, companion, read_mark, set_aside, sync_folder


def open_file(path: Path) -> tuple[Database, Sequence[str]]:
    """A sound database, and problems in one line each.

    Only a file that is proven damaged is replaced, and it stays beside the new one under another name.
    Raises: StateUnavailable and its kinds, for everything else; the file is then as it was.
    """
    with translated():
        problems: list[str] = []
        acknowledged = read_mark(path)
        if not path.exists():
            acknowledged = _begin(path, acknowledged, problems)
        try:
            database, commits = _opened(path)
        except StateDamaged as damage:
            aside = set_aside(path)
            problems.append(f"{damage}. It was set aside as {aside.name} and a new one was begun [{damage.code}]")
            create(path)
            database, commits = _opened(path)
            acknowledged = 0
        if commits < acknowledged:
            loss = StateWentBack(commits, acknowledged)
            aside = set_aside(path, keep=True)
            problems.append(f"{loss}. It was copied as {aside.name} and is used as it is [{loss.code}]")
    try:
        database.keep_mark(path)
    except BaseException:
        database.close()
        raise
    return database, problems


def _begin(path: Path, acknowledged: int, problems: list[str]) -> int:
    """A file where there is none; commits its mark still speaks of."""
    if any(companion(path, suffix).exists() for suffix in COMPANIONS):
        aside = set_aside(path)
        if acknowledged:
            loss = StateVanished(acknowledged)
            problems.append(f"{loss}. What lay beside it is now {aside.name}-* and a new one was begun [{loss.code}]")
    create(path)
    return 0


def _opened(path: Path) -> tuple[Database, int]:
    database = Database(path)
    try:
        return database, database.verify()
    except BaseException:
        database.close()
        raise


def write_snapshot(path: Path, target: Path, database: Database) -> None:
    """A whole and checked copy of `database`, whose file is `path`, at `target`, in place of what is there.

    Raises: StateUnavailable and its kinds; ValueError when `target` is the state file itself.
    """
    if target.resolve() == path.resolve():
        raise ValueError("a snapshot is another file than the state file")
    unfinished = companion(target, ".new")
    try:
        database.copy_to(unfinished)
        copy = Database(unfinished, mode="ro")
        try:
            copy.verify()
        finally:
            copy.close()
        with translated():
            unfinished.replace(target)
            sync_folder(target.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
