"""From an author's folder to a package, and from a package to a signed one.

The same folder gives the same bytes: files in the order of their names, no times, no owners. Boundary: reads the
folder, writes nothing. Invariant: what is packed is read back as a node would read it, so nothing is shipped that is
refused there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec import json, structs

from magmobo.extensions.package.archive import MAX_FILE_BYTES, MAX_FILES, MAX_UNPACKED_BYTES, write_archive
from magmobo.extensions.package.errors import PackFailed
from magmobo.extensions.package.format import (
    INDEX,
    MANIFEST,
    SIGNATURE,
    FileEntry,
    Index,
    digest,
    read_unverified,
)
from magmobo.extensions.package.keys import PRIVATE_MARK, KeyPair, signature_of
from magmobo.extensions.package.paths import path_problem
from magmobo.extensions.package.validate import read_manifest

LEFT_OUT = ("tests", "node_modules", "dist", "build")
"""Folders at the top that stay at home; below, they may be other people's packages. So do, everywhere, what is hidden,
`__pycache__`, and files of these endings.
"""
LEFT_OUT_ENDINGS = (".pyc", ".pyo", ".magx", ".key", ".key.pub")


def pack(folder: Path, *, version: Callable[[str], str] | None = None) -> bytes:
    """The unsigned package of an extension's folder.

    version: gives the version to pack it as, from that of its manifest.
    Raises: PackFailed, ManifestRefused, PackageRefused for what a node would refuse.
    """
    files = read_folder(folder)
    if MANIFEST not in files:
        raise PackFailed(str(folder), f"there is no {MANIFEST}")
    manifest = read_manifest(files[MANIFEST])
    if version is not None:
        manifest = structs.replace(manifest, version=version(manifest.version))
        files[MANIFEST] = json.encode(manifest)
    index = Index(format="magx/1", id=manifest.id, version=manifest.version, key_id="", files=_entries(files))
    return _checked(write_archive({INDEX: index.encoded(), **files}))


def sign(data: bytes, pair: KeyPair) -> bytes:
    """The same package, signed by this key; a signature that it had is replaced.

    Raises: PackageRefused, ManifestRefused.
    """
    package = read_unverified(data)
    index = Index(
        format="magx/1", id=package.id, version=package.version, key_id=pair.key_id, files=package.index.files
    )
    encoded = index.encoded()
    return _checked(write_archive({INDEX: encoded, SIGNATURE: signature_of(encoded, pair), **package.files}))


def read_folder(folder: Path) -> dict[str, bytes]:
    """Path -> content of what would be packed, in order. Raises: PackFailed."""
    files: dict[str, bytes] = {}
    total_bytes = 0
    for path in _walk(folder, ""):
        if (problem := path_problem(path)) is not None:
            raise PackFailed(path, problem)
        content = _read(folder / path, path)
        total_bytes += len(content)
        if len(files) >= MAX_FILES or total_bytes > MAX_UNPACKED_BYTES:
            raise PackFailed(str(folder), f"more than {MAX_FILES} files, or than {MAX_UNPACKED_BYTES} bytes")
        files[path] = content
    return dict(sorted(files.items()))


def _walk(folder: Path, below: str) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
    except OSError as error:
        raise PackFailed(str(folder / below), os.strerror(error.errno or 0).lower()) from error
    for entry in entries:
        path = f"{below}{entry.name}"
        if entry.name.startswith(".") or entry.name.endswith(LEFT_OUT_ENDINGS) or path in (INDEX, SIGNATURE):
            continue
        if entry.is_symlink():
            raise PackFailed(path, "it is a symbolic link; a package holds files")
        if entry.is_dir():
            if path not in LEFT_OUT and entry.name != "__pycache__":
                yield from _walk(folder, f"{path}/")
        else:
            yield path


def _read(file: Path, path: str) -> bytes:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise PackFailed(path, os.strerror(error.errno or 0).lower()) from error
    with os.fdopen(descriptor, "rb", closefd=True) as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PackFailed(path, "it is no regular file")
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise PackFailed(path, f"it is larger than {MAX_FILE_BYTES} bytes")
    if content.startswith(PRIVATE_MARK.encode()):
        raise PackFailed(path, "it holds a private key; keep that out of the folder")
    return content


def _entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {path: FileEntry(digest(content), len(content)) for path, content in files.items()}


def _checked(data: bytes) -> bytes:
    read_unverified(data)
    return data
