"""The data folder: its layout, how it is made ours, and the lock that lets one node use it.

Boundary: nothing here knows what components keep in the folder. The lock is `flock` on a file that is never removed:
it dies with the process, also by kill -9, and a removed lock file would let two nodes hold two locks on one folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import stat
from contextlib import suppress
from pathlib import Path

from magmobo.admin.errors import (
    DataFolderError,
    DataFolderForeign,
    DataFolderIsFile,
    DataFolderOccupied,
    NodeAlreadyRuns,
    data_folder_error,
)

_ROOM_BYTES = 1_048_576  # what must fit before anything is written in earnest
_ID_BYTES = 8
_INSTANCE_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class DataFolder:
    """Where things are in a data folder. Making one of these touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.lock_file = self.path / "node.lock"
        self.control_socket = self.path / "control.sock"
        self.instance_file = self.path / "instance_id"
        self.secrets_file = self.path / "secrets" / "generated.toml"
        self.log_dir = self.path / "logs"
        self.log_file = self.log_dir / "mag.jsonl"
        self.output_file = self.log_dir / "node.out"

    def claim(self) -> None:
        """Create the folder (0700), or take the one that is there when it may be ours. Writes nothing into it.

        Raises: DataFolderForeign, DataFolderReadOnly, DataFolderIsFile, DiskFull, DataFolderOccupied, DataFolderError.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_ours()
        except FileExistsError as error:
            raise DataFolderIsFile(Path(error.filename)) from error
        except OSError as error:
            raise data_folder_error(self.path, error) from error

    def furnish(self) -> None:
        """Make the subfolders, having seen that there is room. Call it while holding the lock.

        Raises: DataFolderReadOnly, DiskFull, DataFolderError.
        """
        try:
            self._check_room()
            self.log_dir.mkdir(mode=0o700, exist_ok=True)
            self.secrets_file.parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise data_folder_error(self.path, error) from error

    def instance_id(self) -> str:
        """Names this folder's node for good; made at the first call. Call it while holding the lock.

        Raises: DataFolderError and its kinds.
        """
        try:
            written = self.instance_file.read_bytes().strip() if self.instance_file.exists() else b""
            if not written:
                written = os.urandom(_ID_BYTES).hex().encode()
                write_atomically(self.instance_file, written.decode() + "\n")
        except OSError as error:
            raise data_folder_error(self.path, error) from error
        if not _INSTANCE_ID.fullmatch(written):  # it stands in every log line and answer
            raise DataFolderError(self.path, "instance_id is not as MagMoBo wrote it; restore it or remove it")
        return written.decode()

    def holder_pid(self) -> int | None:
        """Process id of the last node that took the lock; it may have ended. Raises nothing."""
        try:
            written = self.lock_file.read_bytes()[:32].strip()
        except OSError:
            return None
        return int(written) if written.isdigit() else None

    def _check_ours(self) -> None:
        found = self.path.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise DataFolderIsFile(self.path)
        if found.st_uid != os.geteuid():
            raise DataFolderForeign(self.path, f"{_user_name(found.st_uid)}, while this is {_user_name(os.geteuid())}")
        if not self.lock_file.exists() and next(self.path.iterdir(), None) is not None:
            raise DataFolderOccupied(self.path)
        if stat.S_IMODE(found.st_mode) != 0o700:
            self.path.chmod(0o700)

    def _check_room(self) -> None:
        """Write a megabyte and take it away again, so that a full disk is found before anything is half done."""
        probe = self.path / ".room"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(probe, flags, 0o600), "wb") as file:
                file.write(bytes(_ROOM_BYTES))
        finally:
            with suppress(FileNotFoundError):
                probe.unlink()


class NodeLock:
    """The right to be the node of a data folder. Held from `acquire` to `release`, or to the end of the process."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting. Raises: NodeAlreadyRuns, DataFolderError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._folder.lock_file, flags, 0o600)
        except OSError as error:
            raise data_folder_error(self._folder.path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).strip()
            os.close(descriptor)
            raise NodeAlreadyRuns(self._folder.path, int(holder) if holder.isdigit() else None) from None
        except OSError as error:
            os.close(descriptor)
            raise data_folder_error(self._folder.path, error) from error
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give the folder back; calling it twice is fine."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.ftruncate(descriptor, 0)
            os.close(descriptor)


def open_regular(path: Path, *, follow: bool = False) -> int:
    """A descriptor to read a file from. A pipe, a device or, without `follow`, a link is none, and nobody waits for it.

    Raises: OSError.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "this is no regular file", str(path))


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` (0600) so that a crash at any moment leaves the old content or the new, never a part.

    Raises: OSError.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
