"""Tells a file of settings that somebody removed or shortened by accident from one that was edited.

A TOML file that is cut off at the end of a line is valid, and a file that is gone is no mistake of any parser: both
would quietly bring back defaults. So the files that count are remembered, line by line as salted hashes and never as
text, in memory and for the next start in a file. Boundary: it compares what it is given and touches no file of the
user's; whether it is asked at all (`--accept-removed`) is its caller's choice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from msgspec import Struct

from magmobo.kernel.config.checked import pack, unpack
from magmobo.kernel.config.layers import shown_path
from magmobo.kernel.durable import make_folder, read_regular, write_durably

_LIMIT_BYTES = 67_108_864
_SALT_BYTES = 16
_DIGEST_BYTES = 8
_MEANT = "if it is meant to be so, `mag config:reload --accept-removed`, or `mag up` with the same"


class _Lines(Struct, frozen=True):
    """One file. `digests[n]` is of everything up to line n, `sizes_bytes[n]` of that line; after the first `telling`
    lines there are blank ones and comments only.
    """

    digests: Sequence[str]
    sizes_bytes: Sequence[int]
    telling: int


class _Accepted(Struct, frozen=True):
    """The files that count, by their path from `folder`, or whole when they lie elsewhere."""

    folder: str = ""
    salt: str = ""
    files: Mapping[str, _Lines] = {}


class FileGuard:
    """Compares files with those that were accepted last. Its methods may be called from any thread.

    Args:
        record: where the accepted files are remembered for the next start; its folder's parent is there.
        folder: where the main file lies. Paths below it are remembered without it, so that a project can move.
    """

    def __init__(self, record: Path, folder: Path) -> None:
        self._record, self._folder = record, folder.absolute()
        self._accepted: _Accepted | None = None
        self._is_written = True
        self._turn = threading.Lock()

    def problems(self, texts: Mapping[Path, bytes]) -> Sequence[str]:
        """What is gone or cut off in this reading, a line for people each, with what to do.

        texts: the content of each file that was read, by its path.
        """
        with self._turn:
            try:
                accepted = self._known()
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not as MagMoBo wrote it"
                lost = f"{self._record}: cannot be read ({reason}), so nobody knows which files of settings counted"
                return [f"{lost}; look whether all of them are there; {_MEANT}"]
        now = {self._name(path): (path, text) for path, text in texts.items()}
        found = []
        for name, lines in sorted(accepted.files.items()):
            if name not in now:
                if path := self._gone(name, accepted):
                    found.append(f"{shown_path(path)}: counted until now and is gone; put it back, or {_MEANT}")
                continue
            path, text = now[name]
            if (kept := _kept_lines(lines, text, accepted.salt)) is not None:
                cut = f"{shown_path(path)}: ends after line {kept} of {len(lines.digests)}; was it half written?"
                found.append(f"{cut} Put the rest back, or {_MEANT}")
        return found

    def accept(self, texts: Mapping[Path, bytes]) -> None:
        """These files count now, also for the next start.

        Raises nothing: they count already. What cannot be remembered for the next start is logged, and tried again.
        """
        with self._turn:
            try:
                before, is_sound = self._known(), True
            except (OSError, ValueError):
                before, is_sound = _Accepted(), False
            salt = before.salt or os.urandom(_SALT_BYTES).hex()
            files = {self._name(path): _lines_of(text, salt) for path, text in texts.items()}
            is_same = is_sound and (files, str(self._folder)) == (before.files, before.folder or str(self._folder))
            if is_same and self._is_written:
                return
            self._accepted, self._is_written = _Accepted(str(self._folder), salt, files), False
            try:
                make_folder(self._record.parent)
                write_durably(self._record, pack(self._accepted))
                self._is_written = True
            except OSError as error:
                _warn(self._record, error)

    def _known(self) -> _Accepted:
        """Raises: ValueError when the record is damaged, OSError."""
        if self._accepted is None:
            try:
                content = read_regular(self._record, _LIMIT_BYTES)
            except FileNotFoundError:
                return _Accepted()
            self._accepted = unpack(content, _Accepted)
        return self._accepted

    def _name(self, path: Path) -> str:
        whole = path.absolute()
        return str(whole.relative_to(self._folder)) if whole.is_relative_to(self._folder) else str(whole)

    def _gone(self, name: str, accepted: _Accepted) -> Path | None:
        """Where a file that was not read should be; None when it is there, so that it was left out on purpose."""
        here, there = self._folder / name, Path(accepted.folder) / name
        return None if _is_there(here) or _is_there(there) else here


def _warn(record: Path, error: OSError) -> None:
    import structlog  # 15 ms, for who has something to say

    log = structlog.get_logger().bind(component="config")
    log.warning("the files that count are not remembered for the next start", file=str(record), error=error.strerror)


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _lines_of(text: bytes, salt: str) -> _Lines:
    lines = text.removesuffix(b"\n").split(b"\n")
    telling = [number for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith(b"#")]
    return _Lines(_digests(lines, salt), [len(line) for line in lines], telling[-1] if telling else 0)


def _digests(lines: Sequence[bytes], salt: str) -> Sequence[str]:
    """Of everything up to each line."""
    running, found = blake2b(digest_size=_DIGEST_BYTES, key=bytes.fromhex(salt)), []
    for line in lines:
        running.update(line + b"\n")
        found.append(running.copy().hexdigest())
    return found


def _kept_lines(before: _Lines, text: bytes, salt: str) -> int | None:
    """How many lines are left when this is the beginning of what was there and lacks something that says something.

    A last line without an end counts as a beginning when it is shorter than the one that stood there.
    """
    *whole, rest = text.split(b"\n")
    if rest and len(rest) >= (before.sizes_bytes[len(whole)] if len(whole) < len(before.sizes_bytes) else 0):
        whole.append(rest)
    kept = len(whole)
    if kept >= before.telling or (kept and _digests(whole, salt)[-1] != before.digests[kept - 1]):
        return None
    return kept
