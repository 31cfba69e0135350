"""`.magx`: the package of an extension, and the only way to its content.

A package is an archive of `MAGX.json` (the index: whose it is, and the sha256 and size of every other file), `MAGX.sig`
(Ed25519 over the exact bytes of the index), `manifest.json`, the code, `migrations/` and `vendor/`. Boundary: bytes in
memory. Invariant: whoever holds a `Package` of `read_package` holds what the owner of a trusted key signed, file by
file; nothing was written and nothing executed to find that out. Source: docs/extension-package.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from magmobo.contracts.extensions import Digest, ExtensionId
from magmobo.contracts.guests import Migration
from magmobo.extensions.package.archive import MAX_FILE_BYTES, read_archive
from magmobo.extensions.package.errors import (
    PackageRefused,
    PackageUnsigned,
    SignatureRefused,
    SignerUnknown,
)
from magmobo.extensions.package.keys import is_signature
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.migrationfiles import read_migrations
from magmobo.extensions.package.validate import read_manifest

INDEX, SIGNATURE, MANIFEST = "MAGX.json", "MAGX.sig", "manifest.json"
SIGNATURE_BYTES = 64
KeyId = Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?(?![\s\S])")]


class FileEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a package."""

    sha256: Digest
    size: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]


class Index(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed. `key_id` is empty while the package is not; `files` names every file but the index and its
    signature.
    """

    format: Literal["magx/1"]
    id: ExtensionId
    version: Annotated[str, Meta(max_length=60)]
    key_id: KeyId
    files: Mapping[str, FileEntry]

    def encoded(self) -> bytes:
        """The one form in which it is written: compact JSON, keys sorted."""
        return msgspec.json.encode(self, order="sorted")


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was read. `files` are those of the index, by path; `sha256` is of all its bytes, `migrations` in
    the order in which they run.
    """

    manifest: Manifest
    index: Index
    files: Mapping[str, bytes]
    migrations: Sequence[Migration]
    sha256: str
    size_bytes: int

    @property
    def id(self) -> str:
        """The extension."""
        return self.manifest.id

    @property
    def version(self) -> str:
        """Its version."""
        return self.manifest.version

    @property
    def key_id(self) -> str:
        """The key that signed it; empty: nobody did."""
        return self.index.key_id

    @property
    def signer(self) -> str:
        """The same, in the word of `Installed`."""
        return self.index.key_id


def read_package(data: bytes, keys: Mapping[str, bytes]) -> Package:
    """A signed package, checked as a whole before anything of it counts.

    Args:
        keys: key id -> the 32 raw bytes of a public key, of those whose packages may be installed.
    Raises: PackageRefused, PackageUnsigned, SignerUnknown, SignatureRefused, ManifestRefused.
    """
    files = read_archive(data)
    index_bytes, signature = files.pop(INDEX, b""), files.pop(SIGNATURE, b"")
    index = _read_index(index_bytes)
    if not index.key_id or not signature:
        raise PackageUnsigned
    public = keys.get(index.key_id)
    if public is None:
        raise SignerUnknown(index.key_id)
    if len(signature) != SIGNATURE_BYTES or not is_signature(signature, index_bytes, public):
        raise SignatureRefused(index.key_id)
    return _package(data, index, files)


def read_unverified(data: bytes) -> Package:
    """A package of whoever made it, for tools that show or sign one. It is checked like any other, but its signature is
    not looked at: nothing of it may be run or installed.

    Raises: PackageRefused, ManifestRefused.
    """
    files = read_archive(data)
    index = _read_index(files.pop(INDEX, b""))
    if bool(index.key_id) != bool(files.pop(SIGNATURE, b"")):
        raise PackageRefused(f"{INDEX} and {SIGNATURE} do not agree on whether it is signed")
    return _package(data, index, files)


def digest(content: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def _read_index(content: bytes) -> Index:
    if not content:
        raise PackageRefused(f"it has no {INDEX}")
    try:
        index = msgspec.json.decode(content, type=Index)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PackageRefused(f"its {INDEX} is not an index") from error
    if index.encoded() != content:  # two texts for one index would be two readings of one package
        raise PackageRefused(f"its {INDEX} is not written as `mag extension:pack` writes it")
    return index


def _package(data: bytes, index: Index, files: dict[str, bytes]) -> Package:
    if differing := sorted(index.files.keys() ^ files.keys()):
        which = "is not in its index" if differing[0] in files else "is missing"
        raise PackageRefused(f"{differing[0]} {which}")
    for path, content in files.items():
        entry = index.files[path]
        if entry.size != len(content) or entry.sha256 != digest(content):
            raise PackageRefused(f"{path} is not the file that its index names")
    if MANIFEST not in files:
        raise PackageRefused(f"it has no {MANIFEST}")
    manifest = read_manifest(files[MANIFEST])
    if (index.id, index.version) != (manifest.id, manifest.version):
        raise PackageRefused("its index names another extension or version than its manifest")
    if problems := content_problems(manifest, files):
        raise PackageRefused("; ".join(problems[:5]))
    migrations, _ = read_migrations(files)
    return Package(manifest, index, files, migrations, digest(data), len(data))


def content_problems(manifest: Manifest, files: Mapping[str, bytes]) -> Sequence[str]:
    """What the files do not have that the manifest says, in words."""
    migrations, problems = read_migrations(files)
    module = re.sub(r"\.", "/", manifest.entry.partition(":")[0])
    sources = (f"{module}.py", f"{module}/__init__.py", f"vendor/{module}.py", f"vendor/{module}/__init__.py")
    found = list(problems)
    if not any(source in files for source in sources):
        found.append(f"the entry {manifest.entry} needs a file {sources[0]}")
    if migrations and not any(one.name in ("database.schema", "database.admin") for one in manifest.capabilities):
        found.append("migrations need the capability database.schema")
    return found
