"""Keeps secrets out of whatever is about to be written, by how they look.

Values under a name that sounds secret are replaced whole; text is searched for passwords in URLs and connection
strings, authorization headers, private keys, and tokens of well-known shapes. Depth and size are bounded; the input is
never changed. `kernel.known` adds what only a node knows: the secrets themselves, however they look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from magmobo.contracts.secret import HIDDEN, Secret

MAX_DEPTH = 6
MAX_TEXT_CHARS = 16_384
_BEYOND_CHARS = 4_096  # read past the cut, so that a secret is whole when it is looked for
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|secret|token|authorization|credential|cookie|(api|private|access)[_-]?key|_pwd$"
    r"|^dsn$|^conninfo$",
    re.IGNORECASE,
)
_PERSONS = frozenset({"user", "username", "user_name", "user_id", "userid", "login", "login_name", "sub"})
# Each is linear, or bounded, in the length of a text that an attacker may have chosen. A quote may be left open.
_URL = re.compile(
    r"\w://\S+"
)  # with whatever follows up to a blank: passwords hold anything, and may be tokens of 2 KiB
_USER = re.compile(r"(\w://[^\s:/@]*):.*", re.DOTALL)
_ASSIGNED = ("password", "passwd", "passphrase", "secret", "token", "api_key", "apikey")
_ASSIGNMENT = re.compile(
    rf"((?:{'|'.join(_ASSIGNED)})\\{{0,3}}[\"']?\s{{0,4}}[=:]\s{{0,4}})(?!\*\*\*|expected )"
    r"(?!(?:vault|file|env|cred):[^\s,;&'\"]+ cannot be followed)"  # a reference says where a secret is
    r"('(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|\\+\"(?:(?!\\+\")[\s\S])*|[^\s,;&'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9+/_.=~-]{8,}", re.IGNORECASE)
SHAPES = re.compile(
    r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"  # JSON Web Token
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\bxox[abeprs]-[\w-]{10,}|\b[sr]k[-_][\w-]{16,}|\bAIza[\w-]{30,}|\bSG\.[\w-]{16,}\.[\w-]{16,}|\bhvs\.[\w-]{20,}"
    r"|\bAGE-SECRET-KEY-1[0-9A-Z]{20,}"
)
_BEGINNINGS = (
    "eyJ", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "sk-", "sk_", "rk-",
    "rk_", "AIza", "SG.", "hvs.", "AGE-SECRET",
)  # fmt: skip
PRIVATE_KEY = re.compile(  # one without its end may be a cut one, or somebody who wants the rest of a log hidden
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?:.{0,16000}?-----END [A-Z0-9 ]{0,40}KEY-----|.{0,8000})", re.DOTALL
)
_EMAIL = re.compile(r"[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_MAX_NAMES = 4_096
_SHORT_CHARS = 16  # a word below that is a token of no known shape


class Redactor:
    """Makes copies that are safe to write.

    Args:
        hide: takes out of a text what looks like nothing and is a secret all the same.
        person: what is written instead of the name of a person.
        hides_emails: asked for each text.
    """

    def __init__(
        self,
        hide: Callable[[str], str] = str,
        person: Callable[[str], str] = str,
        hides_emails: Callable[[], bool] = bool,
    ) -> None:
        self._hide, self._person, self._hides_emails = hide, person, hides_emails
        self._is_secret: dict[str, bool] = {}

    def text(self, text: str) -> str:
        """`text` without the secrets in it, and not longer than 16 Ki characters."""
        shown = _by_looks(self._hide(text[: MAX_TEXT_CHARS + _BEYOND_CHARS]))
        if "@" in shown and self._hides_emails():
            shown = _EMAIL.sub(HIDDEN, shown)
        return shown[:MAX_TEXT_CHARS] + "…" if len(text) > MAX_TEXT_CHARS else shown

    def value(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """A copy of `value` that is safe to write and that JSON can hold. `name` is the key it stands under."""
        if name and value is not None and self._sounds_secret(name) and not isinstance(value, bool):
            return HIDDEN
        if isinstance(value, str):
            return self.text(value) if name not in _PERSONS else self._person(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Secret):
            return HIDDEN
        if depth >= MAX_DEPTH:
            return "…"
        if isinstance(value, Mapping):
            return {self._key(key): self.value(item, str(key), depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(item, "", depth + 1) for item in value]
        return self.text(_text_of(value))

    def _key(self, key: Any) -> str:
        text = str(key)
        return self._hide(text) if len(text) < _SHORT_CHARS and text.isidentifier() else self.text(text)

    def _sounds_secret(self, name: str) -> bool:
        known = self._is_secret.get(name)
        if known is None:
            known = sounds_secret(name)
            if len(self._is_secret) < _MAX_NAMES:
                self._is_secret[name] = known
        return known


def sounds_secret(name: str) -> bool:
    """Whether what stands under `name` is hidden."""
    return _SECRET_NAME.search(name) is not None


def without_passwords(text: str) -> str:
    """`text` without the passwords in its URLs."""
    return _URL.sub(_without_password, text) if "://" in text else text


def _by_looks(text: str) -> str:
    if len(text) < _SHORT_CHARS and text.isalnum():  # most values are a word
        return text
    if "-----BEGIN" in text:
        text = PRIVATE_KEY.sub(HIDDEN, text)
    text = without_passwords(text)
    lowered = text.lower()
    if any(word in lowered for word in _ASSIGNED):
        text = _ASSIGNMENT.sub(rf"\1{HIDDEN}", text)
    if "bearer" in lowered or "basic" in lowered:
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
    return SHAPES.sub(HIDDEN, text) if any(beginning in text for beginning in _BEGINNINGS) else text


def _without_password(url: re.Match[str]) -> str:
    """`x://user:***@host`; the password goes up to the last @, because one may stand in it."""
    before, at, after = url.group().rpartition("@")
    return _USER.sub(rf"\1:{HIDDEN}", before, count=1) + at + after


def _text_of(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a broken `__repr__` must not cost the log line
        return f"<{type(value).__name__}, unprintable: {type(error).__name__}>"


_by_looks_alone = Redactor()
redact = _by_looks_alone.value
redact_text = _by_looks_alone.text
