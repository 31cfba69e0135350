"""Opening a file of SOPS: the data key with age, each value with AES-256-GCM, and the MAC over all of them.

Only what was encrypted is a secret: values in the clear (an `apiVersion`, a key ending in `_unencrypted`) count for the
MAC and are left out. Boundary: text in, values out; `stores` knows the formats, `age` the identities.
Invariant: nothing leaves here before every value and the MAC proved authentic. The place of a value in its tables is
part of what is authenticated, so values cannot be exchanged.
Source: https://getsops.io/docs/#encryption-protocol, checked against files that `sops` wrote.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from magmobo.admin.secret_files.dotenv import value_of
from magmobo.admin.secret_files.errors import (
    IdentityWrong,
    SecretFileMalformed,
    SecretFileTampered,
    SecretFileUnsupported,
)
from magmobo.admin.secret_files.names import Found
from magmobo.admin.secret_files.stores import DEFAULT_SECTION, Format, Store, read_store
from magmobo.admin.secret_files.trees import Leaf, TreeMalformed, leaves

if TYPE_CHECKING:
    from magmobo.admin.secret_files.age import Identities

_VALUE = re.compile(
    r"ENC\[AES256_GCM,data:([A-Za-z0-9+/=]*),iv:([A-Za-z0-9+/=]+),tag:([A-Za-z0-9+/=]+),type:([a-z0-9]+)\]"
)
_TYPES = frozenset(("str", "int", "int64", "float", "bool", "bytes", "time"))
_MAX_RECIPIENTS = 64
_ONLY_ENCRYPTED_START = hashlib.sha256(b"sops").digest()
"""What a MAC over the encrypted values alone begins with, so that it is never one over all of them."""


def open_sops(path: Path, text: str, name: Format, identities: Identities) -> Sequence[Found]:
    """The values that are encrypted in the file, in its order.

    Raises: SecretFileMalformed, SecretFileUnsupported, IdentityWrong, SecretFileTampered, ExtraMissing.
    """
    try:
        store = read_store(text, name)
    except TreeMalformed as error:
        raise SecretFileMalformed(path, [str(error)]) from None
    opener = _Opener(path, _data_key(path, store, identities))
    digest = hashlib.sha512()
    only_encrypted = _text(store, "mac_only_encrypted").lower() == "true"
    if only_encrypted:
        digest.update(_ONLY_ENCRYPTED_START)
    found: list[Found] = []
    for number, (keys, tables, leaf) in enumerate(leaves(store.values), start=1):
        place = f"entry {number}"
        sealed = _VALUE.fullmatch(leaf.text)
        if sealed is None:
            digest.update(b"" if only_encrypted else leaf.digested)
            continue
        plain = opener.open(sealed, ":".join((*tables, "")), place)
        digest.update(plain)
        found.append(_found(store.format, keys, _text_of(path, plain, sealed[4], place), place))
    _check(path, store, opener, digest.hexdigest().upper())
    return found


class _Opener:
    """Opens sealed values with the data key of one file."""

    def __init__(self, path: Path, data_key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._path, self._cipher = path, AESGCM(data_key)

    def open(self, sealed: re.Match[str], bound_to: str, place: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            data, iv, tag = (base64.b64decode(part, validate=True) for part in sealed.group(1, 2, 3))
            if not 12 <= len(iv) <= 64 or len(tag) != 16:
                raise SecretFileTampered(self._path, f"{place}: it is not sealed as SOPS does it")
            return self._cipher.decrypt(iv, data + tag, bound_to.encode())
        except (binascii.Error, InvalidTag, UnicodeEncodeError):
            raise SecretFileTampered(self._path, f"{place}: it was changed, or moved, after SOPS wrote it") from None


def _data_key(path: Path, store: Store, identities: Identities) -> bytes:
    groups = store.metadata.get("key_groups")
    if groups is not None and not isinstance(groups, Leaf) and len(groups) > 1:
        raise SecretFileUnsupported(path, "its key is split among several groups (Shamir's secret sharing)")
    recipients = store.metadata.get("age")
    texts = [
        entry["enc"].text
        for entry in (recipients if isinstance(recipients, list) else [])
        if isinstance(entry, Mapping) and isinstance(entry.get("enc"), Leaf)
    ]
    if not texts:
        raise SecretFileUnsupported(path, "it is not encrypted for any age recipient, only for a cloud's key or PGP")
    for text in texts[:_MAX_RECIPIENTS]:
        try:
            data_key = identities.open(path, text.encode())
        except IdentityWrong:
            continue
        if len(data_key) != 32:
            raise SecretFileTampered(path, "its data key has the wrong length")
        return data_key
    raise IdentityWrong(path, "the identity is none of those it is encrypted for")


def _check(path: Path, store: Store, opener: _Opener, expected: str) -> None:
    sealed = _VALUE.fullmatch(_text(store, "mac"))
    if sealed is None:
        raise SecretFileTampered(path, "its MAC is missing")
    mac = opener.open(sealed, _text(store, "lastmodified"), "the MAC")
    if not hmac.compare_digest(mac, expected.encode()):
        raise SecretFileTampered(
            path, "its MAC does not fit: values were added, removed or changed after SOPS wrote it"
        )


def _text(store: Store, key: str) -> str:
    leaf = store.metadata.get(key)
    return leaf.text if isinstance(leaf, Leaf) else ""


def _text_of(path: Path, plain: bytes, kind: str, place: str) -> str:
    if kind not in _TYPES:
        raise SecretFileUnsupported(path, f"{place}: a type of value that is not known")
    try:
        text = plain.decode()
    except UnicodeDecodeError:
        raise SecretFileMalformed(path, [f"{place}: it is no text"]) from None
    if kind != "bool":
        return text
    if text not in ("True", "False"):  # the type is not covered by the MAC
        raise SecretFileTampered(path, f"{place}: its type was changed")
    return text.lower()


def _found(store_format: Format, keys: Sequence[str], text: str, place: str) -> Found:
    """The value as its format means it: what `sops decrypt` prints is read again, quotes of a `.env` and all."""
    if store_format == "ini" and keys[0] == DEFAULT_SECTION:
        keys = keys[1:]
    if store_format == "env":
        keys = [keys[0].strip().removeprefix("export ").strip()]
        meant = value_of(text)
        text = text if meant is None else meant
    return Found(keys, text, place)
