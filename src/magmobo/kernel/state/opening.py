"""From whatever lies at the path of the state file to one that can be used, and what has to be said about it. And the
way back: a copy that can be put there.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from magmobo.kernel.durable import sync_folder
from magmobo.kernel.state.database import Database, create, translated
from magmobo.kernel.state.errors import StateDamaged, StateVanished, StateWentBack
from magmobo.kernel.state.files import COMPANIONS, check_writable, companion, read_mark, set_aside


class Opened(Struct, frozen=True):
    """A sound file, with one connection to write and one to read, and what was wrong before, a line each."""

    writable: Database
    readable: Database
    problems: list[str]

    def close(self) -> None:
        """Let go of the file. The one that writes goes last: whoever closes last empties the write-ahead log."""
        try:
            self.readable.close()
        finally:
            self.writable.close()


def open_file(path: Path) -> Opened:
    """A sound file, opened.

    Only a file that is proven damaged is replaced, and it stays beside the new one under another name.
    Raises: StateUnavailable and its kinds, for everything else; the file is then as it was.
    """
    with translated():
        problems: list[str] = []
        acknowledged = read_mark(path)
        if not path.exists():
            acknowledged = _begin(path, acknowledged, problems)
        try:
            opened, commits = _opened(path, problems)
        except StateDamaged as damage:
            aside = set_aside(path)
            problems.append(f"{damage}. It was set aside as {aside.name} and a new one was begun [{damage.code}]")
            create(path)
            opened, commits = _opened(path, problems)
            acknowledged = 0
        try:
            if commits < acknowledged:
                loss = StateWentBack(commits, acknowledged)
                aside = set_aside(path, keep=True)
                problems.append(f"{loss}. It was copied as {aside.name} and is used as it is [{loss.code}]")
            opened.writable.keep_mark(path)
        except BaseException:
            opened.close()
            raise
    return opened


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


def _opened(path: Path, problems: list[str]) -> tuple[Opened, int]:
    """Checked by a connection that may only read, and stays: another one would, when it closes what it found damaged,
    merge the write-ahead log into it, and what is set aside were no longer what was found.
    """
    check_writable(path)
    readable = Database(path, mode="ro")
    try:
        commits = readable.verify()
        readable.forget_pages()
        return Opened(Database(path), readable, problems), commits
    except BaseException:
        readable.close()
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
