"""Keys that sign packages: Ed25519 pairs, each half in a text file of one line.

A key is named by its `key_id`: the first 32 hex digits of the sha256 of the 32 raw public bytes. Boundary: key files
and key text; who is trusted is for the node to keep. Invariant: no error and no text holds a private key, and a private
key that others could read is not used.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from magmobo.contracts.secret import Secret
from magmobo.extensions.package.errors import KeyRefused

KEY_BYTES = 32
PRIVATE_MARK = "magx-private-1"
PUBLIC_MARK = "magx-public-1"
_MAX_FILE_BYTES = 1_024
_TEXT = "the text"
"""What a public key that cannot be used is called: it comes over the wire, not from a file."""
_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Points for which a signature can be made without a private key; their last bit may be set as well."""
_LINE = re.compile(r"(?:(magx-(?:public|private)-1)\s+)?([A-Za-z0-9+/]{43}=)\s*")


class KeyPair(NamedTuple):
    """Both halves; `private` is base64 of the 32 raw bytes."""

    public: bytes
    private: Secret

    @property
    def key_id(self) -> str:
        """What packages name this key by."""
        return key_id(self.public)


def key_id(public: bytes) -> str:
    """32 hex digits that name a public key.

    >>> key_id(bytes(32))
    '66687aadf862bd776c8fc18b8e9f8e20'
    """
    return hashlib.sha256(public).hexdigest()[:32]


def generate() -> KeyPair:
    """A new pair."""
    return _pair(os.urandom(KEY_BYTES))


def public_text(public: bytes) -> str:
    """The line that a public key's file holds, without its end."""
    return f"{PUBLIC_MARK} {base64.b64encode(public).decode()}"


def parse_public(text: str) -> bytes:
    """The 32 raw bytes of a public key: the line of its file, or the base64 alone. Raises: KeyRefused."""
    mark, raw = _parsed(text, _TEXT)
    if mark == PRIVATE_MARK:
        raise KeyRefused(_TEXT, "this is a private key, which is nobody else's business; give the .pub file")
    if bytes((*raw[:31], raw[31] & 0x7F)) in _SMALL_ORDER:
        raise KeyRefused(_TEXT, "anybody could sign for this key")
    return raw


def write_pair(pair: KeyPair, private_file: Path) -> Path:
    """Write both halves: `private_file` (0600) and beside it the same name with `.pub`, which is returned.

    Neither may be there already. Raises: KeyRefused.
    """
    public_file = private_file.with_name(private_file.name + ".pub")
    _write_new(private_file, f"{PRIVATE_MARK} {pair.private.reveal()}\n", 0o600)
    try:
        _write_new(public_file, public_text(pair.public) + "\n", 0o644)
    except KeyRefused:
        private_file.unlink()
        raise
    return public_file


def read_pair(private_file: Path) -> KeyPair:
    """The pair of a private key's file. Raises: KeyRefused when others may read it, or it is none."""
    place = str(private_file)
    mark, raw = _parsed(_read_private(private_file), place)
    if mark != PRIVATE_MARK:
        raise KeyRefused(place, "this is not a private key")
    return _pair(raw)


def signature_of(content: bytes, pair: KeyPair) -> bytes:
    """Ed25519 over `content`, 64 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(pair.private.reveal())).sign(content)


def is_signature(signature: bytes, content: bytes, public: bytes) -> bool:
    """Whether `signature` is one of `content` by the owner of `public`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _pair(seed: bytes) -> KeyPair:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return KeyPair(public, Secret(base64.b64encode(seed).decode()))


def _parsed(text: str, place: str) -> tuple[str, bytes]:
    found = _LINE.fullmatch(text)
    if found is None:
        raise KeyRefused(place, f"expected one line: {PUBLIC_MARK} or {PRIVATE_MARK}, then 44 characters of base64")
    try:
        return found[1] or PUBLIC_MARK, base64.b64decode(found[2], validate=True)
    except binascii.Error as error:
        raise KeyRefused(place, "its base64 is damaged") from error


def _read_private(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise KeyRefused(str(path), "this is no regular file")
            if found.st_mode & 0o077:
                raise KeyRefused(str(path), "others may read it")
            return os.read(descriptor, _MAX_FILE_BYTES).decode("ascii", "replace")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyRefused(str(path), os.strerror(error.errno or errno.EIO).lower()) from error


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except FileExistsError as error:
        raise KeyRefused(str(path), "it is there already, and no key is written over") from error
    except OSError as error:
        raise KeyRefused(str(path), os.strerror(error.errno or errno.EIO).lower()) from error
