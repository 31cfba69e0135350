"""How the text of a secret setting refers to a secret that is kept elsewhere. Grammar only, no I/O.

    vault:name    vault:name@3    file:path    env:NAME    cred:NAME    plain:text
    postgres://app:${vault:app-password}@db/app

A whole value that begins like a reference is one; `plain:` says that the rest is the secret itself, whatever is in it.
Inside of a longer text a reference stands in `${…}`. Where the text is a URL what it stands for is percent-encoded, and
in a connection string of libpq (`host=db password=${vault:x}`) it is escaped, so a secret cannot break out of its
place. What a reference led to is never read as one again. Invariant: a text that is no proper reference is not shown,
because it may be a secret that only begins like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from magmobo.kernel.config.errors import ReferenceFailed

PLAIN = "plain:"
# As text: every start loads this, and few have a reference for which they would have to be compiled.
_WHOLE = r"(?s)(vault|file|env|cred):(.*)"
_INSIDE = r"\$\{(vault|file|env|cred):([^{}]*)(\}?)"
_URL = r"[A-Za-z][A-Za-z0-9+.-]*://"
_CONNINFO = r"\s*(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*="
_NAMES = {
    "vault": r"([a-z0-9][a-z0-9._-]{0,99})(?:@([1-9][0-9]{0,8}))?(?![\s\S])",
    "file": r"([^\x00-\x1f]{1,4096})(?![\s\S])",
    "env": r"([A-Za-z_][A-Za-z0-9_]{0,199})(?![\s\S])",
    "cred": r"([A-Za-z0-9_-][A-Za-z0-9._-]{0,199})(?![\s\S])",
}
_EXPECTED = {
    "vault": "vault:name or vault:name@version",
    "file": "file:path",
    "env": "env:NAME",
    "cred": "cred:NAME",
}


class Reference(Struct, frozen=True):
    """Where a secret is kept. `origin`: who says so, as `Config.origin` spells it; a relative path starts there."""

    kind: str
    name: str
    version: int | None = None
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"@{self.version}" if self.version else "")


class Followed(NamedTuple):
    """What became of a text: the secret itself, the references that were in it, and why some of them failed."""

    text: str
    references: tuple[Reference, ...]
    problems: tuple[str, ...]


def follow(text: str, origin: str, resolve: Callable[[Reference], str]) -> Followed:
    """The secret that `text` stands for. `resolve` gives what one reference leads to, or raises ReferenceFailed."""
    if text.startswith(PLAIN):
        return Followed(text.removeprefix(PLAIN), (), ())
    references: list[Reference] = []
    problems: list[str] = []

    def led_to(kind: str, name: str) -> str:
        try:
            references.append(_reference(kind, name, origin))
            return resolve(references[-1])
        except (ReferenceFailed, ValueError) as error:
            problems.append(str(error))
            return ""

    if whole := re.match(_WHOLE, text):
        return Followed(led_to(whole[1], whole[2]), tuple(references), tuple(problems))
    spelled = _spelling(text)

    def filled(found: re.Match[str]) -> str:
        if not found[3]:
            problems.append(f"${{{found[1]}:… has no }} at its end; write {PLAIN} before a secret that has such text")
            return ""
        return spelled(led_to(found[1], found[2]))

    return Followed(re.sub(_INSIDE, filled, text), tuple(references), tuple(problems))


def _reference(kind: str, name: str, origin: str) -> Reference:
    """Raises: ValueError, which does not show what was there."""
    found = re.match(_NAMES[kind], name)
    if found is None:
        raise ValueError(
            f"begins like a reference and is none: expected {_EXPECTED[kind]}, or {PLAIN} before the secret itself"
        )
    version = found[2] if kind == "vault" else None
    return Reference(kind, found[1], int(version) if version else None, origin)


def _spelling(text: str) -> Callable[[str], str]:
    """How a secret is written at its place inside of `text`."""
    if re.match(_URL, text):
        from urllib.parse import quote

        return lambda secret: quote(secret, safe="")
    if re.match(_CONNINFO, text):
        return lambda secret: re.sub(r"([\\'\s])", r"\\\1", secret)
    return lambda secret: secret
