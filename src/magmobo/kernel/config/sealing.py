"""Encrypts what a node keeps of its settings, because a merged configuration holds secrets.

AES-256-GCM under a key that is made at the first use and lies in a file of its own (0600, 64 hex digits). A sealed
text is 8 bytes that name the key, a nonce of 12, and the ciphertext with its tag. Boundary: this keeps secrets out of
copies of the versions alone; whoever owns the whole data folder owns the key.
Source: NIST SP 800-38D (a random nonce of 96 bits serves 2^32 texts under one key).
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path

from magmobo.kernel.config.errors import SealKeyDamaged
from magmobo.kernel.durable import make_folder, read_regular, write_durably

_KEY_BYTES = 32
_NAME_BYTES = 8
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_FILE_LIMIT_BYTES = 4096
_KEY_FILE = re.compile(rb"[0-9a-f]{64}\n?(?![\s\S])")


class SealBroken(ValueError):
    """A sealed text cannot be opened; the text says why, for people."""


class Sealer:
    """Seals with the key in `key_file`, whose folder need not be there yet."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def seal(self, plain: bytes, *, context: bytes) -> bytes:
        """`plain`, readable with the key and the same `context` only. Raises: OSError, SealKeyDamaged."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 26 ms, for who keeps a version

        key = self._key() or self._new_key()
        nonce = os.urandom(_NONCE_BYTES)
        return _name_of(key) + nonce + AESGCM(key).encrypt(nonce, plain, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """What was sealed. Raises: SealBroken, OSError, SealKeyDamaged."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key, start = self._key(), _NAME_BYTES + _NONCE_BYTES
        if fault := self._fault(sealed, key):
            raise SealBroken(fault)
        try:
            return AESGCM(key).decrypt(sealed[_NAME_BYTES:start], sealed[start:], context)
        except InvalidTag:
            raise SealBroken("its seal is wrong: somebody changed it") from None

    def fault_of(self, sealed: bytes) -> str:
        """Why this cannot be opened, as far as that shows without opening it; empty when nothing is wrong.

        Raises: OSError, SealKeyDamaged.
        """
        return self._fault(sealed, self._key())

    def _fault(self, sealed: bytes, key: bytes) -> str:
        if len(sealed) < _NAME_BYTES + _NONCE_BYTES + _TAG_BYTES:
            return "it is cut off"
        if not key:
            return f"its key, {self._key_file}, is gone"
        return "" if sealed.startswith(_name_of(key)) else f"{self._key_file} is not the key it was sealed with"

    def _key(self) -> bytes:
        """Empty when there is none."""
        try:
            text = read_regular(self._key_file, _KEY_FILE_LIMIT_BYTES)
        except FileNotFoundError:
            return b""
        if not _KEY_FILE.fullmatch(text):
            raise SealKeyDamaged(self._key_file)
        return bytes.fromhex(text.decode())

    def _new_key(self) -> bytes:
        key = os.urandom(_KEY_BYTES)
        make_folder(self._key_file.parent)
        write_durably(self._key_file, key.hex().encode() + b"\n")
        return key


def _name_of(key: bytes) -> bytes:
    return sha256(b"magmobo config key 1\n" + key).digest()[:_NAME_BYTES]
