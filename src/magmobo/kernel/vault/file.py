"""The local vault: one sealed file in the data folder, `vault/vault.mag`, replaced whole with every change.

Boundary: what is in the file is `sheet`'s, which key opens it is `keys`'. A change takes a lock that other processes
respect, reads what is there, and is durable before it returns; readers see the file before or after it. What is kept in
memory between calls is as sealed as the file; of keys, the one that opened it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from msgspec import Struct, structs

from magmobo.contracts.errors import SecretUnknown, VaultUnavailable
from magmobo.contracts.planes import SecretInfo
from magmobo.kernel.durable import make_folder, open_regular, write_durably
from magmobo.kernel.vault import sheet
from magmobo.kernel.vault.disk import locked, signature_of, told
from magmobo.kernel.vault.driver import Mark, VaultSettings
from magmobo.kernel.vault.errors import SecretRefused, VaultDamaged, VaultKeyMissing, VaultKeyWrong
from magmobo.kernel.vault.keys import Key, KeyRing
from magmobo.kernel.vault.names import check_secret
from magmobo.kernel.vault.sheet import Entry, Head, Sheet

_VAULT_ID_BYTES = 16


class _Change(Struct):
    """A change that is being made: versions by name, oldest first, all of them under `key`."""

    head: Head
    secrets: dict[str, list[Entry]]
    key: Key
    former: Key | None


class LocalVault:
    """Implements `driver.VaultDriver`. Neither file nor key needs to be there before the first write."""

    name = "local"

    def __init__(self, settings: VaultSettings, data_dir: Path, *, time_s: Callable[[], float] = time.time) -> None:
        self._data_dir, self._time_s = data_dir, time_s
        self._file = data_dir / "vault" / "vault.mag"
        self._ring, self._versions = KeyRing(settings, data_dir), settings.versions
        self._turn = threading.RLock()
        self._seen: tuple[tuple[int, ...], Sheet] | None = None
        self._checked: tuple[Sheet, Key] | None = None  # a sheet whose seal is right, and its key

    @property
    def key_source(self) -> str:
        return self._ring.source

    # ------------------------------------------------------------ looking

    def read(self, name: str, version: int | None = None) -> tuple[str, int]:
        with self._turn, told():
            opened = self._open(self._ring)
            if opened is not None:
                found, key = opened
                for entry in reversed(found.entries):
                    if entry.name == name and version in (None, entry.version):
                        return sheet.open_secret(entry, found.head.vault_id, key), entry.version
        raise SecretUnknown(name, version)

    def infos(self) -> Sequence[SecretInfo]:
        with self._turn, told():
            opened = self._open(self._ring)
        return [] if opened is None else [sheet.info_of(versions) for versions in _by_name(opened[0]).values()]

    def mark(self) -> Mark | None:
        with self._turn, told():
            found = self._look()
        return None if found is None else found.mark

    # ------------------------------------------------------------ changing

    def write(self, secrets: Mapping[str, str], *, pinned: Mapping[str, Collection[int]]) -> Sequence[SecretInfo]:
        for name, text in secrets.items():
            check_secret(name, text)
        with self._changing():
            change = self._begin(self._ring.wanted)
            for name, text in secrets.items():
                versions = [*change.secrets.get(name, ()), self._new_version(name, text, change)]
                surplus, kept = versions[: -self._versions], versions[-self._versions :]
                change.secrets[name] = [old for old in surplus if old.version in pinned.get(name, ())] + kept
            self._replace(change)
            return [sheet.info_of(change.secrets[name]) for name in secrets]

    def remove(self, name: str) -> None:
        with self._changing():
            change = self._begin(self._ring.wanted)
            if name not in change.secrets:
                raise SecretUnknown(name)
            del change.secrets[name]
            self._replace(change)

    def rekey(self, *, above_generation: int) -> None:
        with self._changing():
            change = self._begin(self._ring.fresh)
            generation = max(change.head.generation, above_generation + 1)
            change.head = structs.replace(change.head, generation=generation)
            self._replace(change)

    def reconfigure(self, settings: VaultSettings) -> None:
        with self._turn:
            ring = KeyRing(settings, self._data_dir)
            if ring.same_as(self._ring):
                ring = self._ring  # it knows what it derived
            elif self.mark() is not None:
                self._move_to(ring)
            self._ring, self._versions = ring, settings.versions

    def close(self) -> None:
        with self._turn:
            self._seen = self._checked = None

    # ------------------------------------------------------------ the file as it is

    def _look(self) -> Sheet | None:
        """Its digest is right; what it says is not yet to be believed."""
        signature = signature_of(self._file)
        if signature is None:
            self._seen = None
        elif self._seen is None or self._seen[0] != signature:
            with open_regular(self._file) as file:
                raw = file.read(sheet.MAX_FILE_BYTES + 1)
            if len(raw) > sheet.MAX_FILE_BYTES:
                raise VaultDamaged(f"it is larger than the {sheet.MAX_FILE_BYTES:,} bytes that a vault may have")
            self._seen = signature, sheet.parse(raw)
        return None if self._seen is None else self._seen[1]

    def _open(self, ring: KeyRing) -> tuple[Sheet, Key] | None:
        """Its seal is right."""
        found = self._look()
        if found is None:
            return None
        if self._checked is None or self._checked[0] is not found:
            known = self._checked[1] if self._checked is not None else None
            key = known if known is not None and known.tag == found.head.key else ring.opening(found.head.key)
            found.check_seal(key)
            self._checked = found, key
        return self._checked

    # ------------------------------------------------------------ the file as it will be

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._turn, told():
            make_folder(self._file.parent)
            with locked(self._file.with_name("vault.lock")):
                yield

    def _begin(self, choose: Callable[[Key | None], Key]) -> _Change:
        """A change of what is there, all of it under the key that `choose` gives; `former` is the one before."""
        opened = self._open(self._ring)
        if opened is None:
            key = choose(None)
            return _Change(Head(sheet.FORMAT, os.urandom(_VAULT_ID_BYTES).hex(), 1, key.tag), {}, key, None)
        found, former = opened
        key, vault_id = choose(former), found.head.vault_id
        secrets = _by_name(found)
        if key.tag != former.tag:
            for versions in secrets.values():
                for place, entry in enumerate(versions):
                    text = sheet.open_secret(entry, vault_id, former)
                    versions[place] = sheet.seal_secret(text, entry, vault_id, key)
        head = structs.replace(found.head, generation=found.head.generation + 1, key=key.tag)
        return _Change(head, secrets, key, former)

    def _new_version(self, name: str, text: str, change: _Change) -> Entry:
        now = datetime.fromtimestamp(self._time_s(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        versions = change.secrets.get(name)
        version, since = (versions[-1].version + 1, versions[-1].since) if versions else (1, now)
        entry = Entry(name, version, now, since, change.head.generation, b"", b"")
        return sheet.seal_secret(text, entry, change.head.vault_id, change.key)

    def _replace(self, change: _Change) -> None:
        entries = [entry for _, versions in sorted(change.secrets.items()) for entry in versions]
        raw = sheet.write(change.head, entries, change.key)
        if len(raw) > sheet.MAX_FILE_BYTES:
            raise SecretRefused(f"the vault would be larger than {sheet.MAX_FILE_BYTES:,} bytes")
        written = sheet.parse(raw)
        write_durably(self._file, raw)
        signature = signature_of(self._file)
        self._seen = (signature, written) if signature is not None else None
        self._checked = written, change.key
        with suppress(OSError, VaultUnavailable):  # the vault is changed and readable; the next change tries again
            self._ring.settle(change.key, change.former)

    def _move_to(self, ring: KeyRing) -> None:
        """Encrypt everything under the key that `ring` names; it may be the only one that opens the file."""
        before = self._ring
        with self._changing():
            try:
                self._open(before)
            except (VaultKeyMissing, VaultKeyWrong):
                self._open(ring)
            self._ring = ring
            try:
                change = self._begin(ring.wanted)
                if change.former is None or change.former.tag != change.key.tag:
                    self._replace(change)
            except BaseException:
                self._ring = before
                raise


def _by_name(found: Sheet) -> dict[str, list[Entry]]:
    return {name: list(versions) for name, versions in groupby(found.entries, lambda entry: entry.name)}
