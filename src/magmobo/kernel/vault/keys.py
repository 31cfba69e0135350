"""The key of the local vault: where it may come from, and what is derived from it.

A key is 32 bytes: given as hex (`vault.key`), derived from a passphrase with scrypt, or kept in a file of its own,
`secrets/vault.key`, 0600. The vault never uses it directly: one subkey wraps the data keys, another seals the file, and
a third names the key, so that a wrong one is told from a damaged file. Boundary: only the key files are touched here.
Source: RFC 5869 (subkeys), RFC 7914 (scrypt) with the parameters that OWASP's cheat sheet gives for 32 MiB.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from magmobo.contracts.secret import Secret
from magmobo.kernel.durable import make_folder, sync_folder, write_durably
from magmobo.kernel.vault.disk import read_private
from magmobo.kernel.vault.driver import VaultSettings
from magmobo.kernel.vault.errors import RekeyRefused, VaultKeyMissing, VaultKeyWrong

KEY_BYTES = 32
COST = (15, 8, 3)
"""Of a new passphrase: log2 n, r and p of scrypt."""


class Scrypt(Struct, frozen=True, forbid_unknown_fields=True):
    """How a key was derived from a passphrase. `salt` is hex. The bounds keep a forged file from costing minutes."""

    salt: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}(?![\s\S])")]
    log2_n: Annotated[int, Meta(ge=14, le=18)]
    r: Annotated[int, Meta(ge=8, le=8)]
    p: Annotated[int, Meta(ge=1, le=4)]


class KeyTag(Struct, frozen=True, forbid_unknown_fields=True):
    """What a vault file says of its key; `id` is of one key and tells nothing about it."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}(?![\s\S])")]
    scrypt: Scrypt | None = None


class Key:
    """One key and what is derived from it."""

    def __init__(self, secret: bytes, scrypt: Scrypt | None = None) -> None:
        self._secret = secret
        self.tag = KeyTag(self._derived("name")[:16].hex(), scrypt)

    @cached_property
    def wrapping(self) -> bytes:
        """The 32 bytes that data keys are wrapped with."""
        return self._derived("wrap")

    @cached_property
    def sealing(self) -> bytes:
        """The 32 bytes that the file is sealed with."""
        return self._derived("seal")

    def _derived(self, purpose: str) -> bytes:
        """One block of HKDF-SHA256; the key is random or stretched already."""
        extracted = hmac.digest(b"magmobo vault 1", self._secret, "sha256")
        return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")


class KeyRing:
    """The keys that the settings and the data folder have for one vault."""

    def __init__(self, settings: VaultSettings, data_dir: Path) -> None:
        self._key, self._passphrase = settings.key, settings.passphrase
        self._file = data_dir / "secrets" / "vault.key"
        self._coming = data_dir / "secrets" / "vault.key.new"
        self._stretched: dict[Scrypt, Key] = {}

    @property
    def source(self) -> str:
        """Where the settings say the key comes from, for people."""
        if self._key is not None:
            return "the setting vault.key"
        if self._passphrase is not None:
            return "the setting vault.passphrase"
        return "secrets/vault.key in the data folder"

    def same_as(self, other: KeyRing) -> bool:
        """Whether the settings of both name the same key."""
        return self._key == other._key and self._passphrase == other._passphrase

    def opening(self, tag: KeyTag) -> Key:
        """The key that `tag` names; one in a file counts too when the settings name another, so that a vault can be
        moved from the one to the other.

        Raises: VaultKeyMissing, VaultKeyWrong, VaultKeyExposed, OSError.
        """
        tried: list[str] = []
        for name, key in self._candidates(tag):
            if key is not None and key.tag.id == tag.id:
                return key
            tried.append(name)
        if tried:
            raise VaultKeyWrong(f"it is encrypted under another key than {' and '.join(tried)}")
        if tag.scrypt is not None:
            raise VaultKeyMissing("it is encrypted under a passphrase, and vault.passphrase is not set")
        raise VaultKeyMissing(f"{self._file} is gone, or vault.key is not set any more")

    def wanted(self, opened: Key | None) -> Key:
        """The key to write under: `opened` if that is what the settings name, else theirs; a file is made if need be.

        Raises: VaultKeyExposed, VaultKeyWrong, OSError.
        """
        if self._key is not None:
            return _given(self._key)
        if self._passphrase is not None:
            if opened is not None and opened.tag.scrypt is not None:
                key = self._stretch(self._passphrase, opened.tag.scrypt)
                if key.tag.id == opened.tag.id:
                    return key
            return self._stretch(self._passphrase, Scrypt(os.urandom(16).hex(), *COST))
        for path in (self._file, self._coming):
            kept = read_key(path)
            if kept is not None and (opened is None or kept.tag.id == opened.tag.id):
                return kept
        return read_key(self._file) or make_key(self._file)

    def fresh(self, opened: Key | None) -> Key:
        """Another key than `opened`: the one of the settings, or a new one that is kept in `vault.key.new`.

        Raises: RekeyRefused when that of the settings is in use already, OSError.
        """
        if self._key is not None:
            key = _given(self._key)
            if opened is not None and opened.tag.id == key.tag.id:
                raise RekeyRefused("its key is the setting vault.key, and that is the one in use")
            return key
        if self._passphrase is not None:
            return self._stretch(self._passphrase, Scrypt(os.urandom(16).hex(), *COST))
        if opened is not None:
            self._promote(opened)  # it may be the one that is about to be written over
        return make_key(self._coming)

    def settle(self, used: Key, former: Key | None) -> None:
        """The vault is readable with `used` now: that one becomes `vault.key` if it waits beside it, and a file with
        the former key goes.

        Raises: VaultUnavailable, OSError.
        """
        if self._promote(used) or former is None or former.tag.id == used.tag.id:
            return
        kept = read_key(self._file)
        if kept is not None and kept.tag.id == former.tag.id:
            self._file.unlink()
            sync_folder(self._file.parent)

    def _candidates(self, tag: KeyTag) -> Iterator[tuple[str, Key | None]]:
        """What there is, by the names that people know; None for a passphrase where the vault has another kind."""
        if self._key is not None:
            yield "vault.key", _given(self._key)
        if self._passphrase is not None:
            stretched = self._stretch(self._passphrase, tag.scrypt) if tag.scrypt is not None else None
            yield "that of vault.passphrase", stretched
        for path in (self._file, self._coming):
            if (kept := read_key(path)) is not None:
                yield f"that in secrets/{path.name}", kept

    def _promote(self, used: Key) -> bool:
        coming = read_key(self._coming)
        if coming is None or coming.tag.id != used.tag.id:
            return False
        self._coming.rename(self._file)
        sync_folder(self._file.parent)
        return True

    def _stretch(self, passphrase: Secret, how: Scrypt) -> Key:
        if how not in self._stretched:
            self._stretched[how] = from_passphrase(passphrase.reveal(), how)
        return self._stretched[how]


def from_passphrase(passphrase: str, how: Scrypt) -> Key:
    """The key of a passphrase. With the cost of a new one it takes about 0.2 s and 32 MiB."""
    salt, n = bytes.fromhex(how.salt), 1 << how.log2_n
    needed_bytes = 128 * how.r * (n + how.p + 2)
    derived = hashlib.scrypt(
        passphrase.encode(), salt=salt, n=n, r=how.r, p=how.p, maxmem=needed_bytes, dklen=KEY_BYTES
    )
    return Key(derived, how)


def _given(key: Secret) -> Key:
    return Key(bytes.fromhex(key.reveal()))


def read_key(path: Path) -> Key | None:
    """The key in a file, None when there is no file. Raises: VaultKeyExposed, VaultKeyWrong, OSError."""
    try:
        text = read_private(path, 2 * KEY_BYTES + 2).decode("ascii").strip()
        secret = bytes.fromhex(text)
    except FileNotFoundError:
        return None
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise VaultKeyWrong(f"{path} holds no key: expected {2 * KEY_BYTES} hex digits")
    return Key(secret)


def make_key(path: Path) -> Key:
    """A new key in a file of its own, durable when this returns. Raises: OSError."""
    secret = os.urandom(KEY_BYTES)
    make_folder(path.parent)
    write_durably(path, secret.hex().encode() + b"\n")
    return Key(secret)
