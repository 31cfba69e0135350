"""Reads one file of secrets, whatever it is encrypted with, as `mag vault:import` stores it.

Boundary: reads files, writes nothing, shows nothing. Invariant: everything in the file becomes a secret, or nothing
does, and all sizes are bounded: a file of 1 MiB at most is ever held.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from magmobo.admin.secret_files.age import Identities, is_age
from magmobo.admin.secret_files.dotenv import parse_dotenv
from magmobo.admin.secret_files.errors import IdentityNeeded, SecretFileError, SecretFileMalformed
from magmobo.admin.secret_files.names import Found, as_secrets
from magmobo.admin.secret_files.sops import open_sops
from magmobo.admin.secret_files.stores import format_of, holds_sealed
from magmobo.admin.secret_files.trees import Table, TreeMalformed, all_found, parse_json, parse_toml

if TYPE_CHECKING:
    from magmobo.contracts.secret import Secret

MAX_FILE_BYTES = 1_048_576
_MAX_IDENTITY_BYTES = 65_536
_OF_SOPS = frozenset((".json", ".yaml", ".yml", ".ini"))
_TABLE = re.compile(r"\s*(?:#[^\n]*\n\s*)*\[")


def read_secret_file(
    path: Path, *, format: Literal["auto", "env", "age", "sops"] = "auto", identity: Path | None = None
) -> Mapping[str, Secret]:
    """The secrets of a file by name: keys in lower case, of nested tables joined by dots, of lists with the place.

    Values that are empty, and those that SOPS left in the clear, are no secrets and are left out.

    Args:
        format: `env` is a `.env` in the clear; `age` one of `.env`, JSON or TOML that age encrypted (the name says
            which: `secrets.toml.age`); `sops` JSON, YAML, `.env` or INI that SOPS encrypted for an age recipient;
            `auto` looks.
        identity: file with the X25519 identity (`AGE-SECRET-KEY-…`) that opens it.
    Raises: SecretFileError and its kinds, ExtraMissing. No text of theirs holds a value.
    """
    data = _read(path, MAX_FILE_BYTES)
    if format == "age" or (format == "auto" and is_age(data)):
        text = _text(path, _identities(path, identity).open(path, data))
        return as_secrets(path, _decrypted(path, text))
    text = _text(path, data)
    store_format = format_of(text) if format in ("auto", "sops") else None
    if store_format is not None:
        return as_secrets(path, open_sops(path, text, store_format, _identities(path, identity)))
    if format == "sops" or (format == "auto" and (path.suffix in _OF_SOPS or holds_sealed(text))):
        raise SecretFileMalformed(path, ["it holds no metadata of SOPS"])
    return as_secrets(path, parse_dotenv(path, text))


def _decrypted(path: Path, text: str) -> Sequence[Found]:
    """The values of a text that was encrypted as a whole; the name of the file says what it is, else its beginning."""
    inner = Path(path.stem).suffix if path.suffix == ".age" else path.suffix
    if inner == ".json" or (inner != ".env" and text.lstrip().startswith("{")):
        return _of_tree(path, parse_json, text)
    if inner == ".toml" or (inner != ".env" and _TABLE.match(text)):
        return _of_tree(path, parse_toml, text)
    return parse_dotenv(path, text)


def _of_tree(path: Path, parse: Callable[[str], Table], text: str) -> Sequence[Found]:
    try:
        return list(all_found(parse(text)))
    except TreeMalformed as error:
        raise SecretFileMalformed(path, [str(error)]) from None


def _identities(path: Path, identity: Path | None) -> Identities:
    if identity is None:
        raise IdentityNeeded(path, "it is encrypted with age, and no identity was named")
    return Identities(identity, _text(identity, _read(identity, _MAX_IDENTITY_BYTES)))


def _read(path: Path, limit_bytes: int) -> bytes:
    """At most that many bytes: what is no file (a pipe of another program) says no size beforehand."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise SecretFileError(path, (error.strerror or type(error).__name__).lower()) from None
    if len(data) > limit_bytes:
        raise SecretFileError(path, f"it is larger than {limit_bytes} bytes")
    return data


def _text(path: Path, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SecretFileError(path, "it is not text in UTF-8") from None
    if "\0" in text:
        raise SecretFileError(path, "it is not text: it holds a zero byte")
    return text
