"""Which texts a secret gives itself away by: the secret, the passwords inside of it, and other ways to spell them.

Boundary: pure functions of text and configuration sections; imports nothing that a start would not have.
"""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, structs

from magmobo.contracts.secret import Secret

_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_USERINFO = re.compile(r"://[^\s:/@]*:([^\s/]+)@")
_LIBPQ = re.compile(r"\bpassword\s*=\s*(?:'((?:[^'\\]|\\.)+)'|(\S+))")
_CONNECTION = re.compile(
    r"\s*(?:(?:postgres(?:ql)?|rediss?|nats|amqps?)://|(?:host(?:addr)?|port|dbname|user|password|passfile|service"
    r"|sslmode|options|application_name|connect_timeout)\s*=)"
)
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")
_LINE_CHARS = 16


def secrets_in(value: Any) -> Iterator[str]:
    """Every secret inside of configuration sections, lists and tables, and the passwords inside of those secrets."""
    if isinstance(value, Secret):
        yield from secret_parts(value.reveal())
    elif isinstance(value, Struct):
        yield from secrets_in(structs.asdict(value))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from secrets_in(item)


def secret_parts(secret: str) -> Iterator[str]:
    """A secret, and the password in it where it is a connection string."""
    yield secret
    yield from passwords_in(secret)


def telling_parts(secret: str) -> Iterator[str]:
    """What of a secret must appear nowhere: of a connection string the passwords, of a key its lines as well."""
    parts = passwords_in(secret) if _CONNECTION.match(secret) else secret_parts(secret)
    for part in parts:
        yield part
        if "%" in part:
            yield _unquoted(part)
        if "\n" in part:
            yield from (line for line in part.splitlines() if len(line) >= _LINE_CHARS and not line.startswith("-----"))


def passwords_in(text: str) -> Iterator[str]:
    """Passwords in URLs and libpq connection strings."""
    for match in _USERINFO.finditer(text):
        yield match[1]
    for match in _LIBPQ.finditer(text):
        yield match[1] or match[2]
        yield (match[1] or match[2]).partition("&")[0]  # as a parameter of a URL


def spellings(secret: str) -> Iterator[str]:
    """As it is, and as JSON (twice, too), Python, URLs, base64 and hexadecimal digits spell it."""
    as_bytes = secret.encode(errors="surrogatepass")
    yield from (secret, as_bytes.hex(), as_bytes.hex().upper())
    for offset in range(3):
        yield from _inside_base64(as_bytes, offset)
    if _PLAIN.issuperset(as_bytes):  # then all others are the same
        return
    as_json = json.dumps(secret)[1:-1]
    yield from (as_json, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(as_json)[1:-1], repr(secret)[1:-1])
    quoted = _quoted(as_bytes)
    for spelt in (quoted, quoted.replace("%2F", "/"), quoted.replace("%20", "+")):
        yield spelt
        yield _ESCAPE.sub(lambda found: found[0].lower(), spelt)
    yield _unquoted(secret)


def _quoted(content: bytes) -> str:
    """As `urllib.parse.quote` with nothing safe, whose module takes 3 ms to load."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in content)


def _unquoted(text: str) -> str:
    return _ESCAPES.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode(errors="replace"), text)


def _inside_base64(secret: bytes, offset: int) -> Iterator[str]:
    """What base64 of `secret` behind `offset` bytes (modulo 3) always holds, whatever stands before and behind."""
    text = b2a_base64(bytes(offset) + secret, newline=False).decode()
    begin, rest = (0, 2, 3)[offset], (offset + len(secret)) % 3
    text = text[begin : len(text) - (0, 3, 2)[rest]]
    yield text
    yield text.replace("+", "-").replace("/", "_")
