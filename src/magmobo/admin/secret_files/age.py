"""Opening what was encrypted with age (https://age-encryption.org/v1), by an X25519 identity.

Boundary: bytes in, bytes out; `pyrage`, an extra, does the cryptography and is loaded at the first use. Passphrases are
refused: whoever wrote the file would choose how long the key takes to derive.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any

from magmobo.admin.secret_files.errors import (
    ExtraMissing,
    IdentityWrong,
    SecretFileError,
    SecretFileTampered,
    SecretFileUnsupported,
)

BINARY_START = b"age-encryption.org/v1\n"
ARMOR_START = b"-----BEGIN AGE ENCRYPTED FILE-----"
_ARMOR = re.compile(
    rb"\s*-----BEGIN AGE ENCRYPTED FILE-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]*)-----END AGE ENCRYPTED FILE-----\s*"
)
_MAX_IDENTITIES = 32
_MAX_STANZAS = 256
"""Each identity is tried on each: what a hostile header costs is bounded by the two."""


class Identities:
    """The identities of one file, as `age-keygen` writes it: one a line, `#` begins a comment."""

    def __init__(self, path: Path, text: str) -> None:
        """Raises: SecretFileError when it holds no identity, or a bad one; ExtraMissing."""
        self._pyrage: Any = _pyrage()
        lines = [line.strip() for line in text.splitlines()]
        entries = [(number, line) for number, line in enumerate(lines, start=1) if line and not line.startswith("#")]
        if not entries:
            raise SecretFileError(path, "it holds no age identity (a line AGE-SECRET-KEY-…)")
        if len(entries) > _MAX_IDENTITIES:
            raise SecretFileError(path, f"it holds more than {_MAX_IDENTITIES} age identities")
        self._identities = [self._identity(path, number, line) for number, line in entries]

    def _identity(self, path: Path, number: int, line: str) -> Any:
        try:
            return self._pyrage.x25519.Identity.from_str(line)
        except (self._pyrage.IdentityError, ValueError):
            raise SecretFileError(path, f"line {number} is no X25519 identity of age (AGE-SECRET-KEY-…)") from None

    def open(self, path: Path, data: bytes) -> bytes:
        """What `data`, binary or armored, holds; `path` is for the errors.

        Raises: IdentityWrong, SecretFileTampered, SecretFileUnsupported.
        """
        binary = _without_armor(path, data)
        kinds = _recipients(path, binary)
        if kinds == {b"scrypt"}:
            raise SecretFileUnsupported(path, "it is encrypted with a passphrase instead of for an identity")
        try:
            return bytes(self._pyrage.decrypt(binary, self._identities))
        except self._pyrage.DecryptError as error:
            if "matching keys" in str(error):
                raise IdentityWrong(path, "the identity is none of those it is encrypted for") from None
            raise SecretFileTampered(path, "it is damaged, cut off, or was changed after it was encrypted") from None


def is_age(data: bytes) -> bool:
    """Whether this is the beginning of a file of age."""
    return data.startswith(BINARY_START) or data.lstrip().startswith(ARMOR_START)


def _without_armor(path: Path, data: bytes) -> bytes:
    if data.startswith(BINARY_START):
        return data
    armor = _ARMOR.fullmatch(data)
    try:
        if armor is None:
            raise SecretFileTampered(path, "it is no whole file of age")
        return base64.b64decode(b"".join(armor[1].split()), validate=True)
    except binascii.Error:
        raise SecretFileTampered(path, "its armor is damaged") from None


def _recipients(path: Path, binary: bytes) -> set[bytes]:
    """The kinds of recipients that the header names."""
    header = binary.partition(b"\n---")[0]
    stanzas = [line for line in header.split(b"\n") if line.startswith(b"-> ")]
    if len(stanzas) > _MAX_STANZAS:
        raise SecretFileError(path, f"it is encrypted for more than {_MAX_STANZAS} recipients")
    return {stanza.split(b" ")[1] for stanza in stanzas}


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError:
        raise ExtraMissing("a file encrypted with age", "age") from None
    return pyrage
