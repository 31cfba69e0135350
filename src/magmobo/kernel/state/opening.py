"""From whatever lies at the path of the state file to one that can be used, and what has to be said about it. And the
way back: a copy that can be put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from magmobo.kernel.state.database import Database, create, translated
from magmobo.kernel.state.errors import StateDamaged, StateVanished, StateWentBack
from magmobo.kernel.state.files import COMPANIONS, check_writable, companion, read_mark, set_aside, sync_folder


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
    """A file where there is none, and a word about the one that had been there; commits its mark still speaks of."""
    traces = ""
    if any(companion(path, suffix).exists() for suffix in COMPANIONS):
        traces = f"{acknowledged} acknowledged commits went with it; what lay beside it is now {set_aside(path).name}-*"
    elif aside := sorted(path.parent.glob(f"{path.name}.corrupt-*")):
        traces = f"the last one was set aside as {aside[-1].name}"  # and then the node ended, or the disk was full
    create(path)
    if traces:
        loss = StateVanished(traces)
        problems.append(f"{loss}. A new one was begun [{loss.code}]")
    return 0


def _opened(path: Path) -> tuple[Database, int]:
    """Checked by a connection that may only read: another one would, when it closes what it found damaged, merge the
    write-ahead log into it, and what is set aside were no longer what was found.
    """
    check_writable(path)
    database = Database(path, mode="ro")
    try:
        commits = database.verify()
    finally:
        database.close()
    return Database(path), commits


def write_snapshot(path: Path, target: Path, database: Database) -> None:
    """A whole and checked copy of `database`, whose file is `path`, at `target`, in place of what is there.

    Raises: StateUnavailable and its kinds; ValueError when `target` is the state file itself.
    """
    if target.resolve() == path.resolve():
        raise ValueError("a snapshot is another file than the state file")
    unfinished = companion(target, ".new")
    try:
        database.copy_to(unfinished)
        copy = Database(unfinished)
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
