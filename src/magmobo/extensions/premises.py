"""Where the files lie that workers must reach on this node: unpacked code, and the folders of extensions.

A plain user's are in `data_dir/extensions`. Workers of a node that is root have uids of their own, and in a container,
where nothing can be mounted, they come to their files by the ordinary way, which root's 0700 data folder closes. So
those are in `system_dir/<id>`: each folder on the way is 0711 and changed by nobody but root, code may be read by the
group of its extension alone, and a folder of an extension is its own. `data_dir/extensions/home` holds the id.
Boundary: blocking I/O, so all but `leave` is called from a thread. Invariant: the id is on disk before anything is put
there; files that were in the data folder before are moved by one rename or stay where they are, and are used there.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from magmobo.contracts.extensions import DoctorLine
from magmobo.contracts.folders import closed_at, exchangeable_at, make_passable
from magmobo.extensions.package.unpacked import VERSIONS, sweep
from magmobo.extensions.sandbox.errors import PremisesRefused

if TYPE_CHECKING:
    import structlog

FOLDER, DATA = "extensions", "data"
_RECORD, _OWNER = "home", "owner"
_ID = re.compile(r"[0-9a-f]{12}")


class Premises:
    """The folder of this node's extensions, found or made when it is needed first."""

    def __init__(self, data_dir: Path, system_dir: Callable[[], str], log: structlog.stdlib.BoundLogger) -> None:
        self._folder, self._system_dir, self._log = data_dir / FOLDER, system_dir, log
        self._root: Path | None = None
        self._finding = threading.Lock()

    def root(self) -> Path:
        """The folder that `versions` and `data` are in. Raises: PremisesRefused."""
        with self._finding:
            if self._root is None:
                self._root = self._folder if os.geteuid() != 0 else self._of_root()
            return self._root

    def known(self) -> Path:
        """Where there may be files by now; nothing is made, and where there cannot be any, the folder is not there."""
        with suppress(PremisesRefused):  # told to whoever wants to put files there
            if self._folder.is_dir():
                return self.root()
        return self._folder

    def leave(self) -> None:
        """No worker runs any more: the next question finds the folder anew, by the settings that count then."""
        self._root = None

    def look(self) -> DoctorLine:
        """Whether workers come to their files by the ordinary way, in words. Nothing is made."""
        name, remedy = "folder of extensions", PremisesRefused.remedy
        if os.geteuid() != 0:
            return DoctorLine(name, True, str(self._folder))
        place = self._root or Path(self._system_dir())
        try:
            there = next(one for one in (place, *place.parents) if one.is_dir())
            shared, closed = exchangeable_at(place), closed_at(there)
        except OSError as error:
            return DoctorLine(name, False, f"{place}: {error.strerror}", remedy)
        if shared is not None:
            return DoctorLine(name, False, f"{place}: others than root may write to {shared}", remedy)
        if closed is not None:
            return DoctorLine(name, False, f"{place}: a uid of an extension may not pass {closed}", remedy)
        return DoctorLine(name, True, str(place))

    # ------------------------------------------------------------ a node that is root

    def _of_root(self) -> Path:
        system_dir = Path(self._system_dir())
        try:
            _check_unshared(system_dir)
            make_passable(system_dir)
            _check_unshared(system_dir)
            if (closed := closed_at(system_dir)) is not None:
                raise PremisesRefused(str(system_dir), f"others than root may not pass {closed}")
            return self._settled(system_dir.resolve())
        except OSError as error:
            raise PremisesRefused(str(system_dir), error.strerror or str(error)) from error

    def _settled(self, system_dir: Path) -> Path:
        recorded = _read(self._folder / _RECORD)
        if recorded and not _ID.fullmatch(recorded):
            raise PremisesRefused(str(self._folder / _RECORD), "it names no folder")
        if recorded and self._is_of_another(system_dir / recorded):
            recorded = ""
        home = system_dir / (recorded or secrets.token_hex(6))
        if recorded and not home.is_dir():
            self._log.warning("extensions.files_gone", folder=str(home))
        self._folder.mkdir(mode=0o700, exist_ok=True)
        _write(self._folder / _RECORD, home.name)
        for folder in (home, home / VERSIONS, home / DATA):
            make_passable(folder)
        _write(home / _OWNER, str(self._folder.absolute()))  # for people too: whose is this?
        if self._moved_to(home):
            return home
        (self._folder / _RECORD).unlink()
        return self._folder

    def _is_of_another(self, home: Path) -> bool:
        """Whether another data folder has its files there: then ours began as a copy of that one."""
        other = Path(_read(home / _OWNER) or self._folder)
        with suppress(OSError):
            return not other.samefile(self._folder) and _read(other / _RECORD) == home.name
        return False

    def _moved_to(self, home: Path) -> bool:
        """Bring files here that were in the data folder before. False: they are on another file system, and nothing
        is in `home`, which is removed. Raises: OSError.
        """
        old, new = self._folder / DATA, home / DATA
        if not _has_files(old):
            sweep(self._folder, ())
            return True
        # Before it is moved: whoever owned it could exchange folders in it.
        os.chown(old, os.geteuid(), os.getegid())
        old.chmod(0o711)
        try:
            old.rename(new)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise PremisesRefused(
                    str(old), f"there are files in {new}, too; remove those of one of them"
                ) from error
            if error.errno != errno.EXDEV:
                raise
            new.rmdir()
            (home / VERSIONS).rmdir()
            (home / _OWNER).unlink()
            home.rmdir()
            self._log.warning("extensions.files_not_moved", folder=str(old), wanted=str(new))
            return False
        sweep(self._folder, ())
        return True


def _check_unshared(system_dir: Path) -> None:
    """Raises: PremisesRefused, OSError."""
    if (shared := exchangeable_at(system_dir)) is not None:
        raise PremisesRefused(str(system_dir), f"others than root may write to {shared}")


def _has_files(data: Path) -> bool:
    """Whether an extension has something in these folders; those that never were used go."""
    if not data.is_dir():
        return False
    for one in (*data.iterdir(), data):
        with suppress(OSError):
            one.rmdir()
    return data.is_dir()


def _read(path: Path) -> str:
    """A line that we wrote, empty when there is none. Raises: OSError."""
    try:
        return path.read_text(encoding="ascii", errors="surrogateescape").removesuffix("\n")
    except FileNotFoundError:
        return ""


def _write(path: Path, line: str) -> None:
    """Replace a file as a whole, mode 0600, on disk before this returns. Raises: OSError."""
    draft = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(os.fsencode(f"{line}\n"))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
