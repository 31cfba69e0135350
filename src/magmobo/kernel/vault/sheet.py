"""The file of the local vault, as bytes: lines of JSON, names to be seen, secrets sealed. No I/O.

The first line is the head, then comes a line for each version of each secret, and the last says the SHA-256 of all
before it and the seal over that. Accidents are told from attacks and from wrong keys: the digest finds what a disk did
and needs no key, the name of the key comes before the seal, and the seal covers names, order and number of lines. Each
secret is encrypted with AES-256-GCM under a key of its own, that one under the vault's; both are bound to vault, name,
version and the generation they were written in. `cryptography` is loaded with the first secret, not before.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, MsgspecError, Struct, json, structs

from magmobo.contracts.planes import SecretInfo
from magmobo.kernel.vault.driver import Mark
from magmobo.kernel.vault.errors import VaultDamaged, VaultFormatUnknown, VaultTampered
from magmobo.kernel.vault.keys import Key, KeyTag

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = 1
MAX_FILE_BYTES = 32 * 1_048_576
_NONCE_BYTES = 12
_Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]+(?![\s\S])")]


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. `generation` counts the changes of this vault."""

    magvault: int
    vault_id: _Hex
    generation: int
    key: KeyTag


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One version of one secret; times are RFC 3339. `since`: when the secret was stored first. `key` and `value` are
    nonce, ciphertext and tag.
    """

    name: str
    version: int
    at: str
    since: str
    generation: int
    key: bytes
    value: bytes


class _Tail(Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    seal: str


class Sheet(Struct, frozen=True):
    """A whole file. Entries are ordered by name, then by version."""

    head: Head
    entries: tuple[Entry, ...]
    digest: str
    seal: str

    @property
    def mark(self) -> Mark:
        """Which state of which vault it is."""
        return Mark(self.head.vault_id, self.head.generation, self.seal)

    def check_seal(self, key: Key) -> None:
        """Raises: VaultTampered."""
        if not hmac.compare_digest(self.seal, _seal(self.digest, key)):
            raise VaultTampered("its seal is wrong, though the key is the right one")


def parse(raw: bytes) -> Sheet:
    """A file as it was read; nothing of it is to be believed before its seal is checked.

    Raises: VaultDamaged, VaultFormatUnknown.
    """
    body, cut, last = raw.removesuffix(b"\n").rpartition(b"\n")
    try:
        if not (cut and raw.endswith(b"\n")):
            raise VaultDamaged("its end is missing")
        tail, covered = json.decode(last, type=_Tail), sha256(body + cut).hexdigest()
        if tail.sha256 != covered:
            raise VaultDamaged("it is not what was written")
        first, *others = body.split(b"\n")
        if (form := json.decode(first, type=_Form).magvault) > FORMAT:
            raise VaultFormatUnknown(f"it has format {form}, this MagMoBo knows {FORMAT}")
        entries = tuple(json.decode(line, type=Entry) for line in others)
        return Sheet(json.decode(first, type=Head), entries, covered, tail.seal)
    except (MsgspecError, ValueError) as error:
        raise VaultDamaged(f"it cannot be read as a vault ({type(error).__name__})") from None


class _Form(Struct):
    magvault: int


def write(head: Head, entries: Iterable[Entry], key: Key) -> bytes:
    """The bytes of a file, sealed with the key that `head` names; `entries` are ordered as in `Sheet`."""
    body = b"".join(json.encode(line) + b"\n" for line in (head, *entries))
    digest = sha256(body).hexdigest()
    return body + json.encode(_Tail(digest, _seal(digest, key))) + b"\n"


def seal_secret(text: str, entry: Entry, vault_id: str, key: Key) -> Entry:
    """`entry` with the secret `text` in it."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    data_key = os.urandom(32)
    return structs.replace(
        entry,
        key=_encrypted(AESGCM(key.wrapping), data_key, _bound("key", entry, vault_id)),
        value=_encrypted(AESGCM(data_key), text.encode(), _bound("value", entry, vault_id)),
    )


def open_secret(entry: Entry, vault_id: str, key: Key) -> str:
    """The secret in an entry. Raises: VaultTampered."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        data_key = _decrypted(AESGCM(key.wrapping), entry.key, _bound("key", entry, vault_id))
        return _decrypted(AESGCM(data_key), entry.value, _bound("value", entry, vault_id)).decode()
    except (InvalidTag, ValueError) as error:
        raise VaultTampered(f'"{entry.name}" version {entry.version} is not what was stored there') from error


def info_of(versions: Sequence[Entry]) -> SecretInfo:
    """What may be known of a secret, from its versions, oldest first."""
    newest = versions[-1]
    numbers = tuple(entry.version for entry in versions)
    return SecretInfo(newest.name, newest.version, numbers, newest.since, newest.at)


def _seal(digest: str, key: Key) -> str:
    return hmac.digest(key.sealing, digest.encode(), "sha256").hex()


def _bound(what: str, entry: Entry, vault_id: str) -> bytes:
    """What a ciphertext belongs to; it opens nowhere else."""
    return json.encode([what, vault_id, entry.name, entry.version, entry.generation, entry.at, entry.since])


def _encrypted(cipher: AESGCM, plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, bound)


def _decrypted(cipher: AESGCM, sealed: bytes, bound: bytes) -> bytes:
    return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
