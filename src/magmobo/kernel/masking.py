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

from magmobo.contracts.secret import HIDDEN
from magmobo.kernel.needles import MIN_CHARS, Needles
from magmobo.kernel.redact import MAX_TEXT_CHARS, PRIVATE_KEY, SHAPES, redact_text
from magmobo.kernel.spellings import passwords_in, secret_parts, spellings

_MAX_DEPTH = 12
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY_CHARS = 16_000
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


class Masker:
    """Hides secrets. `known`: values that must not appear, whatever stands around them."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = Needles()
        for spelling in {spelling for secret in known if len(secret) >= MIN_CHARS for spelling in spellings(secret)}:
            self._known.add(spelling)

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
        text = PRIVATE_KEY.sub(HIDDEN, self._without_known(text))
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
        line = _HEADER.sub(rf"\1{HIDDEN}", SHAPES.sub(HIDDEN, line))
        return redact_text(_NAMED.sub(_hidden, line))

    def _without_known(self, text: str) -> str:
        return self._known.replaced(text, HIDDEN)


def _hidden(found: re.Match[str]) -> str:
    quote = found[2] or found[3] or ""
    return f"{found[1]}{quote}{HIDDEN}{quote}"


def named_secrets(value: Any, name: str = "") -> Iterator[str]:
    """Every text of a settings file that stands under a name that sounds secret, and the passwords in its URLs."""
    if isinstance(value, str):
        yield from secret_parts(value) if sounds_secret(name) else passwords_in(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_secrets(item, str(key))
    elif isinstance(value, list):
        for item in value:
            yield from named_secrets(item, name)


def sounds_secret(name: str) -> bool:
    """Whether what stands under `name` is to be hidden."""
    return _NAME.search(name) is not None
