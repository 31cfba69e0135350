"""Signed checkpoints: somebody who holds the public key can tell the log's past from a past that was made up later.

A checkpoint is a record whose payload signs the number and hash of the record before it with Ed25519. The key is made
once, in the audit folder, 0600; the fingerprint of its public half is pinned beside the head in the state store.
Boundary: a signature says which node wrote, not that the node was honest; whoever owns the folder owns the key.
`cryptography` is loaded when the first key is, not before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import MsgspecError, Struct, json

from magmobo.kernel.audit.segments import open_file
from magmobo.kernel.durable import sync_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE = "checkpoint.key"
_SUBJECT = "magmobo audit checkpoint 1\n{seq}\n{hash}\n"


class Checkpoint(Struct, frozen=True):
    """Payload of a checkpoint: the record before it, by number and hash, and who says so (hex)."""

    seq: int
    hash: str
    public_key: str
    signature: str


class CheckpointKey:
    """The private key of one log, loaded. `fingerprint` is the sha256 of the public key's 32 bytes, in hex."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key().public_bytes_raw()
        self.fingerprint = fingerprint_of(self._public)

    def sign(self, seq: int, digest: str) -> Checkpoint:
        """What a checkpoint says about record `seq`, whose hash is `digest`."""
        return Checkpoint(seq, digest, self._public.hex(), self._key.sign(_subject(seq, digest)).hex())


def load_or_make(folder: Path, pinned: Sequence[str]) -> tuple[CheckpointKey, str]:
    """The key of this log, and what is wrong, empty when nothing is.

    A key that is missing or not the pinned one is replaced by a new one, and the stranger is kept beside it: its
    checkpoints would be refused. Raises: OSError.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path, problem = folder / KEY_FILE, ""
    try:
        with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
            key = CheckpointKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(file.read(65).decode().strip())))
        if not pinned or key.fingerprint in pinned:
            return key, ""
        problem = "the key of the checkpoints is not the one that is pinned in the state store"
    except FileNotFoundError:
        if pinned:
            problem = "the key of the checkpoints is gone"
    except ValueError:
        problem = "the file with the key of the checkpoints is damaged"
    if problem:
        with suppress(FileNotFoundError):
            path.rename(folder / f"{KEY_FILE}.{os.urandom(4).hex()}.refused")
    made = Ed25519PrivateKey.generate()
    _write_key(path, made.private_bytes_raw().hex())
    return CheckpointKey(made), problem


def fault_of(payload: bytes, seq: int, digest: str, pinned: Sequence[str] | None) -> str:
    """What is wrong with a checkpoint that follows record `seq` with hash `digest`; empty when it is right.

    `payload` is its JSON, `pinned` the fingerprints that the state store knows, None when it could not be asked.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        told = json.decode(payload, type=Checkpoint)
        public = bytes.fromhex(told.public_key)
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(told.signature), _subject(seq, digest))
    except (MsgspecError, ValueError):
        return "it holds no key and signature"
    except InvalidSignature:
        return "its signature is wrong"
    if (told.seq, told.hash) != (seq, digest):
        return "it names another record than the one before it"
    if pinned is not None and fingerprint_of(public) not in pinned:
        return "it is signed by a key that the state store does not know"
    return ""


def fingerprint_of(public: bytes) -> str:
    """Lower-case hex sha256 of a public key's 32 bytes."""
    return sha256(public).hexdigest()


def _subject(seq: int, digest: str) -> bytes:
    return _SUBJECT.format(seq=seq, hash=digest).encode()


def _write_key(path: Path, text: str) -> None:
    """The whole file or none, after a crash at any moment."""
    beside = path.with_name(f".{path.name}.new")
    with os.fdopen(open_file(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(text.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_folder(path.parent)
