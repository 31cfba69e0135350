"""The versions of the settings and what was set at run time, as files in one folder.

`versions/00000012.sealed` is one version: a line with the format and the sha256 of all that follows, a line of metadata
as JSON, in the clear and without secrets, and the sealed snapshot, bound to that metadata. A digest among the metadata
tells a start whether the last version still counts: what opens one takes 26 ms and 5 MB, and a node whose settings stay
does without. `runtime.json` holds what was set at run time, and is written before the first version: where there are
versions without it, it was lost.
Invariant: a file is replaced whole and durable when the call returns; what damages one file costs that file alone.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from magmobo.kernel.config.checked import pack, unpack
from magmobo.kernel.config.disk import told
from magmobo.kernel.config.errors import (
    RuntimeLost,
    SealKeyDamaged,
    VersionDamaged,
    VersionUnknown,
)
from magmobo.kernel.config.sealing import SealBroken, Sealer
from magmobo.kernel.config.source import Base, Runtime
from magmobo.kernel.config.versions import Held, Kept, Snapshot
from magmobo.kernel.durable import UNFINISHED, make_folder, read_regular, sync_folder, write_durably

if TYPE_CHECKING:
    from magmobo.contracts.configuration import ConfigVersion

_LIMIT_BYTES = 67_108_864
_FORMAT = b"magmobo config version 1 "
_HEAD = re.compile(rb"magmobo config version (\d{1,9}) ([0-9a-f]{64})\n")
_NAME = re.compile(r"(\d{8,18})\.sealed")
_FRESH = b"{}"
_DAMAGED = ".json.damaged"


class _Digest(Struct, frozen=True):
    """Of what counted in a version, beside its `ConfigVersion` in the metadata."""

    digest: str


class VersionFolder:
    """Keeps versions and run-time settings in `folder`, whose parent is there; fulfils `Versions`.

    keep: how many versions stay, at least 1; asked at each `add`.
    """

    def __init__(self, folder: Path, *, sealer: Sealer, keep: Callable[[], int]) -> None:
        self._folder, self._sealer, self._keep = folder, sealer, keep
        self._runtime_file, self._versions = folder / "runtime.json", folder / "versions"
        self._held: Held | None = None
        self._last_version = 0
        self._is_lost = False
        self._writing = threading.Lock()

    def read_runtime(self) -> Kept:
        with told():
            numbers = self._numbers() if self._folder.exists() else []
            try:
                kept = self._read_kept()
            except RuntimeLost:
                self._is_lost = True
                raise
            except FileNotFoundError:
                if numbers:
                    raise RuntimeLost(self._runtime_file, "is gone") from None
                kept = Kept()
        kept = msgspec.structs.replace(kept, last_version=max([kept.last_version, *numbers]))
        self._held, self._last_version = kept.held, kept.last_version
        return kept

    def last_version(self) -> int:
        """The highest number of a version that is there, 0 without any. Raises: VersionsUnavailable."""
        with told():
            return max(self._numbers(), default=0)

    async def keep_runtime(self, runtime: Runtime, held: Held | None) -> None:
        await asyncio.to_thread(self._keep_runtime, runtime, held)

    async def add(self, meta: ConfigVersion, base: Base, runtime: Runtime) -> None:
        await asyncio.to_thread(self._add, meta, Snapshot(base, runtime))

    async def list(self, limit: int) -> Sequence[ConfigVersion]:
        return await asyncio.to_thread(self._list, limit)

    async def holds(self, version: int, base: Base, runtime: Runtime) -> bool:
        return await asyncio.to_thread(self._holds, version, base, runtime)

    async def snapshot(self, version: int) -> Snapshot:
        return await asyncio.to_thread(self._snapshot, version)

    def _keep_runtime(self, runtime: Runtime, held: Held | None) -> None:
        with self._writing, told():
            make_folder(self._folder)
            self._last_version = max([self._last_version, *self._numbers()])
            self._write_kept(Kept(runtime, held, self._last_version))
            self._held = held

    def _add(self, meta: ConfigVersion, snapshot: Snapshot) -> None:
        from magmobo.kernel.config.stored import encode  # with `zlib` and `json`, for who keeps a version

        with self._writing, told():
            make_folder(self._folder)
            make_folder(self._versions)
            self._last_version = max([self._last_version, *self._numbers()])
            if meta.version <= self._last_version:
                raise ValueError(f"version {meta.version} after version {self._last_version}")
            if not self._runtime_file.exists():
                self._write_kept(Kept(snapshot.runtime, self._held, self._last_version))
            told_of = msgspec.structs.asdict(msgspec.structs.replace(meta, running=False, restorable=True))
            facts = msgspec.json.encode({**told_of, "digest": _digest_of(snapshot.base, snapshot.runtime)})
            rest = facts + b"\n" + self._sealer.seal(encode(snapshot), context=_FORMAT + facts)
            head = _FORMAT + sha256(rest).hexdigest().encode() + b"\n"
            write_durably(self._path(meta.version), head + rest)
            self._last_version = meta.version
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """What cannot be removed now is removed after the next version."""
        numbers = self._numbers()
        pinned = self._held.version if self._held else 0
        doomed = [self._path(number) for number in numbers[: -self._keep()] if number != pinned]
        doomed += self._versions.glob(f".*{UNFINISHED}")
        for path in doomed:
            with suppress(OSError):
                path.unlink()
        if doomed:
            with suppress(OSError):
                sync_folder(self._versions)

    def _list(self, limit: int) -> Sequence[ConfigVersion]:
        with told():
            numbers = self._numbers()[-limit:] if limit > 0 else []
            found = [self._told_of(number) for number in reversed(numbers)]
        return [version for version in found if version is not None]

    def _told_of(self, number: int) -> ConfigVersion | None:
        """None when it was dropped meanwhile."""
        from magmobo.contracts.configuration import ConfigVersion

        try:
            meta, _, sealed = self._read(number)
            fault = self._sealer.fault_of(sealed)
        except VersionUnknown:
            return None
        except SealKeyDamaged as error:
            fault = str(error)
        except VersionDamaged as error:
            return ConfigVersion(number, self._written_at(number), "", "", (), False, False, f"damaged: {error.reason}")
        return msgspec.structs.replace(meta, restorable=False, note=fault) if fault else meta

    def _holds(self, number: int, base: Base, runtime: Runtime) -> bool:
        with told():
            _, facts, _ = self._read(number)
        try:
            return msgspec.json.decode(facts, type=_Digest).digest == _digest_of(base, runtime)
        except msgspec.ValidationError:  # it was written before there was one
            return False

    def _snapshot(self, number: int) -> Snapshot:
        from magmobo.kernel.config.stored import decode

        with told():
            _, facts, sealed = self._read(number)
            try:
                return decode(self._sealer.open(sealed, context=_FORMAT + facts))
            except SealBroken as error:
                raise VersionDamaged(number, str(error)) from error
            except ValueError as error:
                raise VersionDamaged(number, "another version of MagMoBo wrote what it holds") from error

    def _read(self, number: int) -> tuple[ConfigVersion, bytes, bytes]:
        """Metadata, its bytes, the sealed rest. Raises: VersionUnknown, VersionDamaged."""
        from magmobo.contracts.configuration import ConfigVersion

        try:
            content = read_regular(self._path(number), _LIMIT_BYTES)
        except FileNotFoundError:
            raise VersionUnknown(number) from None
        except OSError as error:
            raise VersionDamaged(number, f"its file cannot be read ({error.strerror})") from error
        head = _HEAD.match(content)
        if head and int(head[1]) != 1:
            raise VersionDamaged(number, "a later version of MagMoBo wrote it")
        rest = content[head.end() :] if head else b""
        if not head or sha256(rest).hexdigest() != head[2].decode():
            raise VersionDamaged(number, "its file is not as it was written")
        facts, _, sealed = rest.partition(b"\n")
        try:
            meta = msgspec.json.decode(facts, type=ConfigVersion)
        except msgspec.MsgspecError as error:
            raise VersionDamaged(number, "its metadata are not as they were written") from error
        if meta.version != number:
            raise VersionDamaged(number, f"its file holds version {meta.version}")
        return meta, facts, sealed

    def _read_kept(self) -> Kept:
        content = read_regular(self._runtime_file, _LIMIT_BYTES)
        if content.strip() == _FRESH:
            return Kept()
        try:
            return unpack(content, Kept)
        except ValueError as error:
            raise RuntimeLost(self._runtime_file, "is not as MagMoBo wrote it") from error

    def _write_kept(self, kept: Kept) -> None:
        if self._is_lost:  # what a safe start could not read is still the only copy of what was said
            self._runtime_file.replace(self._runtime_file.with_suffix(_DAMAGED))
            self._is_lost = False
        write_durably(self._runtime_file, pack(kept))

    def _numbers(self) -> Sequence[int]:
        """The versions whose files are there, lowest first."""
        try:
            names = [path.name for path in self._versions.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(name[1]) for name in map(_NAME.fullmatch, names) if name)

    def _path(self, number: int) -> Path:
        return self._versions / f"{number:08d}.sealed"

    def _written_at(self, number: int) -> str:
        try:
            return datetime.fromtimestamp(self._path(number).lstat().st_mtime, UTC).isoformat(timespec="seconds")
        except OSError:
            return ""


def _digest_of(base: Base, runtime: Runtime) -> str:
    """The base's is keyed, so that nobody can try secrets; what was set at run time holds none."""
    return blake2b(msgspec.json.encode([base.digest, runtime], order="deterministic")).hexdigest()
