"""The files of a package on disk: `<root>/versions/<sha256 of the package>/`, whole or not there.

Files are written into a folder with a name of its own and made durable; one rename makes it the version's. A kill at
any moment leaves the version whole or not there, and at most a folder that `sweep` removes. Boundary: blocking I/O, so
it is called from a thread. Invariant: only what the index lists is written, through descriptors that follow no link,
each file new (O_EXCL) and readable by all (0444), so that a worker of another uid reads it and nobody is invited to
change it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from magmobo.extensions.package.archive import MAX_FILE_BYTES
from magmobo.extensions.package.errors import UnpackedChanged, UnpackFailed
from magmobo.extensions.package.format import Index, Package, digest

VERSIONS = "versions"
_UNFINISHED = ".unpacking-"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(package: Package, root: Path) -> Path:
    """Write the files of a package; the folder they are in. Doing it again changes nothing; what is there and differs
    is replaced.

    Raises: UnpackFailed.
    """
    versions = root / VERSIONS
    target = versions / package.sha256
    try:
        _make_folder(versions)
        if target.is_symlink() or target.exists():
            try:
                verify_unpacked(target, package.index)
            except UnpackedChanged:
                _set_aside(target)
            else:
                return target
        _unpack_new(package, versions, target)
    except OSError as error:
        raise UnpackFailed(str(target), os.strerror(error.errno or errno.EIO).lower()) from error
    return target


def verify_unpacked(folder: Path, index: Index) -> None:
    """That a folder holds exactly the files of an index, and nothing else: no link, no other file.

    Raises: UnpackedChanged.
    """
    expected = set(index.files)
    folders = {path[: place + 1] for path in expected for place, char in enumerate(path) if char == "/"}
    try:
        for path, content in _files_below(folder, "", folders):
            entry = index.files.get(path)
            if entry is None:
                raise UnpackedChanged(str(folder), f"{path} is not of its package")
            if content is None or len(content) != entry.size or digest(content) != entry.sha256:
                raise UnpackedChanged(str(folder), f"{path} was changed")
            expected.discard(path)
    except OSError as error:
        raise UnpackedChanged(str(folder), os.strerror(error.errno or errno.EIO).lower()) from error
    if expected:
        raise UnpackedChanged(str(folder), f"{min(expected)} is missing")


def sweep(root: Path, keep: Collection[str]) -> list[str]:
    """Remove what a kill left behind, and versions whose sha256 is not in `keep`; the names that went.

    Raises: UnpackFailed.
    """
    versions = root / VERSIONS
    try:
        names = [one.name for one in versions.iterdir() if one.name not in keep] if versions.is_dir() else []
        gone = [name for name in names if name.startswith(_UNFINISHED) or _DIGEST.fullmatch(name)]
        for name in gone:
            _remove(versions / name)
    except OSError as error:
        raise UnpackFailed(str(versions), os.strerror(error.errno or errno.EIO).lower()) from error
    return gone


def _unpack_new(package: Package, versions: Path, target: Path) -> None:
    beside = versions / f"{_UNFINISHED}{os.urandom(8).hex()}"
    beside.mkdir(mode=0o700)
    try:
        for path, content in package.files.items():
            _write(beside, path, content)
        for folder, _, _ in os.walk(beside, topdown=False):
            _finish_folder(Path(folder))
        try:
            beside.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            verify_unpacked(target, package.index)  # another process unpacked it meanwhile
            _remove(beside)
        _sync(versions)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _write(root: Path, path: str, content: bytes) -> None:
    *folders, name = path.split("/")
    with _folder(root, folders) as descriptor:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o444, dir_fd=descriptor), "wb") as file:
            os.fchmod(file.fileno(), 0o444)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _folder(root: Path, names: list[str]) -> Iterator[int]:
    """A descriptor of the folder `names` below `root`, made where it is not there."""
    descriptor = os.open(root, _FOLDER_FLAGS)
    try:
        for name in names:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=descriptor)
            inner = os.open(name, _FOLDER_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _files_below(folder: Path, below: str, folders: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
    """Path and content of everything below a folder, as far as a package's file may reach; None for what is no file,
    nor one of `folders`.
    """
    descriptor = os.open(folder / below, _FOLDER_FLAGS)
    try:
        for name in sorted(os.listdir(descriptor)):  # noqa: PTH208 - of a descriptor, not of a path
            path = f"{below}{name}"
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and f"{path}/" in folders:
                yield from _files_below(folder, f"{path}/", folders)
            elif stat.S_ISREG(mode):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with os.fdopen(os.open(name, flags, dir_fd=descriptor), "rb") as file:
                    yield path, file.read(MAX_FILE_BYTES + 1)
            else:
                yield path, None
    finally:
        os.close(descriptor)


def _make_folder(versions: Path) -> None:
    for folder in (versions.parent, versions):
        try:
            folder.mkdir(mode=0o755)
        except FileExistsError:
            continue
        _sync(folder.parent)


def _set_aside(target: Path) -> None:
    """Move what is at `target` out of the way, in one step, then remove it."""
    aside = target.with_name(f"{_UNFINISHED}{os.urandom(8).hex()}")
    target.rename(aside)
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def _finish_folder(folder: Path) -> None:
    descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        os.fchmod(descriptor, 0o755)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
