"""Keeps secrets out of an archive that leaves the house: wider nets than those for our own log, and slower ones.

Boundary: pure functions of text; what a node's own secrets are is told by whoever knows. Four nets, in this order:
every secret this node knows, wherever it stands; keys and tokens of well-known shapes; values after a name that sounds
secret; and `kernel.redact` for URLs and headers. Each is linear, or bounded, in the length of a text that an attacker
may have chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct, structs

from magmobo.contracts.secret import Secret
from magmobo.kernel.redact import HIDDEN, MAX_TEXT_CHARS, redact_text

_MAX_DEPTH = 12
_KNOWN_CHARS = 6  # a shorter secret would hide ordinary words, and hides nothing itself
_PRIVATE_KEY = re.compile(  # one without its end may be a cut one, or somebody who wants the rest of a log hidden
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?:.{0,16000}?-----END [A-Z0-9 ]{0,40}KEY-----|.{0,8000})", re.DOTALL
)
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY_CHARS = 16_000
_SHAPES = re.compile(
    r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"  # JSON Web Token
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\bxox[abeprs]-[\w-]{10,}|\b[sr]k[-_][\w-]{16,}|\bAIza[\w-]{30,}|\bSG\.[\w-]{16,}\.[\w-]{16,}"
)
_WORDS = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|api[_-]?key|private[_-]?key|access[_-]?key|signature"
    r"|authorization|cookie|\b(?:dsn|auth|conninfo)(?![a-z])"
)
_NAME = re.compile(_WORDS, re.IGNORECASE)
_NAMED = re.compile(
    rf"((?:{_WORDS})[\w.-]{{0,40}}\\{{0,3}}[\"']?\s{{0,4}}[=:]\s{{0,4}})"
    r"(?:([\"'])(?:(?!\2)[^\\]|\\.)*\2?|(\\+[\"']).*?(?:\3|$)|[^\s,;&'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"((?:authorization|cookie)[\"']?\s{0,4}[=:]\s{0,4}[\"']?)[^\"'\r\n]+", re.IGNORECASE)
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_USERINFO = re.compile(r"://[^\s:/@]*:([^\s/]+)@")
_LIBPQ = re.compile(r"\bpassword\s*=\s*(?:'((?:[^'\\]|\\.)+)'|(\S+))")


class Masker:
    """Hides secrets. `known`: values that must not appear, whatever stands around them."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        secrets = {secret for secret in known if len(secret) >= _KNOWN_CHARS}
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= _KNOWN_CHARS}
        self._known = sorted(forms, key=lambda form: (-len(form), form))

    def text(self, text: str) -> str:
        """Any number of lines, each without secrets, control characters, and what is past 16 Ki characters."""
        return "\n".join(self._line(line) if line else "" for line in self._whole(text).split("\n"))

    def json(self, text: str, indent: int | None = None) -> str:
        """One JSON value, by the names of its fields too; what is not JSON is taken as text."""
        try:
            value = json.loads(text)
            return self._without_known(json.dumps(self._value(value, "", 0), ensure_ascii=False, indent=indent))
        except (ValueError, RecursionError):
            return self.text(text)

    def json_lines(self, text: str) -> str:
        """Lines of JSON, and whatever else somebody wrote between them."""
        return "\n".join(self.json(line) if line else "" for line in self._whole(text).split("\n"))

    def _whole(self, text: str) -> str:
        """Without what may go over several lines; the first of them may have been cut in the middle of a key."""
        text = _PRIVATE_KEY.sub(HIDDEN, self._without_known(text))
        cut = _KEY_END.search(text, 0, _KEY_CHARS)
        return text if cut is None else HIDDEN + text[cut.end() :]

    def _value(self, value: Any, name: str, depth: int) -> Any:
        if name and sounds_secret(name) and value is not None and not isinstance(value, bool):
            return HIDDEN
        if isinstance(value, str):
            return self.text(value)
        if depth >= _MAX_DEPTH:
            return "…" if isinstance(value, (dict, list)) else value
        if isinstance(value, dict):
            return {self.text(key): self._value(item, key, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item, "", depth + 1) for item in value]
        return value

    def _line(self, line: str) -> str:
        line = line[: 2 * MAX_TEXT_CHARS]
        if not line.isprintable():
            line = "".join(char if char.isprintable() or char == "\t" else " " for char in line)
        line = _HEADER.sub(rf"\1{HIDDEN}", _SHAPES.sub(HIDDEN, line))
        return redact_text(_NAMED.sub(_hidden, line))

    def _without_known(self, text: str) -> str:
        for form in self._known:  # faster than one pattern: most are not there, and a search for one text is quick
            text = text.replace(form, HIDDEN)
        return text


def _hidden(found: re.Match[str]) -> str:
    quote = found[2] or found[3] or ""
    return f"{found[1]}{quote}{HIDDEN}{quote}"


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


def named_secrets(value: Any, name: str = "") -> Iterator[str]:
    """Every text of a settings file that stands under a name that sounds secret, and the passwords in its URLs."""
    if isinstance(value, str):
        yield from secret_parts(value) if sounds_secret(name) else _passwords_in(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_secrets(item, str(key))
    elif isinstance(value, list):
        for item in value:
            yield from named_secrets(item, name)


def sounds_secret(name: str) -> bool:
    """Whether what stands under `name` is to be hidden."""
    return _NAME.search(name) is not None


def secret_parts(secret: str) -> Iterator[str]:
    """A secret, and the password in it where it is a connection string."""
    yield secret
    yield from _passwords_in(secret)


def _passwords_in(text: str) -> Iterator[str]:
    for match in _USERINFO.finditer(text):
        yield match[1]
    for match in _LIBPQ.finditer(text):
        yield match[1] or match[2]
        yield (match[1] or match[2]).partition("&")[0]  # as a parameter of a URL


def _forms(secret: str) -> Iterator[str]:
    """As it is, and as JSON (twice, too), Python, URLs, base64 and hexadecimal digits spell it."""
    from urllib.parse import quote, quote_plus, unquote

    as_bytes = secret.encode(errors="surrogatepass")
    as_json = json.dumps(secret)[1:-1]
    yield from (secret, as_json, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(as_json)[1:-1])
    yield from (repr(secret)[1:-1], as_bytes.hex(), as_bytes.hex().upper())
    for quoted in (quote(as_bytes, safe=""), quote(as_bytes), quote_plus(as_bytes)):
        yield quoted
        yield _ESCAPE.sub(lambda found: found[0].lower(), quoted)
    for offset in range(3):
        yield from _inside_base64(as_bytes, offset)
    yield unquote(secret)


def _inside_base64(secret: bytes, offset: int) -> Iterator[str]:
    """What base64 of `secret` behind `offset` bytes (modulo 3) always holds, whatever stands before and behind."""
    from base64 import b64encode

    text = b64encode(bytes(offset) + secret).decode()
    begin, rest = (0, 2, 3)[offset], (offset + len(secret)) % 3
    text = text[begin : len(text) - (0, 3, 2)[rest]]
    yield text
    yield text.replace("+", "-").replace("/", "_")
