"""What is wrong with a configuration, as lines for whoever wrote it: the setting, what it expects, who set it.

Invariant: no secret of the configuration is in any line, not even one that stands in a setting it does not belong to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from magmobo.contracts.secret import Secret
from magmobo.kernel.config.expected import expectation
from magmobo.kernel.config.keys import around
from magmobo.kernel.config.shapes import holds_secret

_SENSITIVE = r"(?i)pass(word|wd|phrase)?|secret|token|credential|authorization|private|key|dsn"
_USERINFO = r"://[^\s:/@]*:([^\s/]+)@"
_SHOWN_CHARS = 80
_KNOWN_CHARS = 4  # what is shorter stands in ordinary words, and hides nothing itself
_HIDDEN = "***"
_TOLD = 100  # a file with more mistakes than that is no settings file; finding who set each takes time


class _Problem(NamedTuple):
    """`said` may hold what a user or a component's own code wrote; it is looked at when all secrets are known."""

    before: str
    said: str
    after: str


_NOT_TOLD = _Problem("", "", "")


class Problems:
    """Collects; past the first hundred it only counts. `origins`: a setting's path -> who set it."""

    def __init__(self, origins: Mapping[str, str]) -> None:
        self._origins = origins
        self._problems: list[_Problem] = []
        self._secrets: set[str] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._problems)

    def cut(self, count: int) -> None:
        """Forget those after the first `count`."""
        del self._problems[count:]

    def hide(self, secret: str) -> None:
        """This is a secret, so no line may show it, nor what stands behind the colon of a reference that is none."""
        self._secrets.add(secret)
        self._secrets.add(secret.partition(":")[2])

    def texts(self) -> list[str]:
        """One line each, sorted."""
        parts = {part for secret in self._secrets for part in (secret, *re.findall(_USERINFO, secret))}
        secrets = sorted((part for part in parts if len(part) >= _KNOWN_CHARS), key=len, reverse=True)
        found = sorted(
            problem.before + _without(secrets, problem.said) + problem.after if problem.said else problem.before
            for problem in self._problems
            if problem is not _NOT_TOLD
        )
        more = len(self._problems) - len(found)
        return [*found, f"and {more:,} more"] if more else found

    # ------------------------------------------------------------ kinds of problems

    def note(self, path: str, text: str) -> None:
        """`text` shows no value."""
        if self._is_full():
            return
        self._problems.append(_Problem(text + self._in_brackets(path), "", ""))

    def unknown(self, path: str, text: str, name: str, known: Collection[str]) -> None:
        """Nothing is called `name`; the nearest of `known` is offered."""
        if self._is_full():
            return
        import difflib  # for slips of the keyboard

        near = difflib.get_close_matches(name, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(sorted(known))}"
        self.note(path, f"{text}{hint}")

    def missing(self, table: str, path: str, type_: Any) -> None:
        """`path`, which must be set, is not set in `table`."""
        self.note(table, f"{path} is not set: expected {expectation(type_)}")

    def wrong(self, path: str, value: Any, type_: Any) -> None:
        """`value` is not of its type."""
        if self._is_full():
            return
        after = f": expected {expectation(type_)}{self._in_brackets(path)}"
        self._problems.append(_Problem(f"{path} = ", shown(value, path, type_), after))

    def refused(self, path: str, reason: str) -> None:
        """A section's own check, or msgspec's of a whole list, says no."""
        if self._is_full():
            return
        self._problems.append(_Problem(f"{path}: ", reason, self._in_brackets(path)))

    def _is_full(self) -> bool:
        """Whether one more is only counted; then it is."""
        if len(self._problems) < _TOLD:
            return False
        self._problems.append(_NOT_TOLD)
        return True

    # ------------------------------------------------------------ who set it

    def origin(self, path: str) -> str:
        """Who set `path`; of a table that is set in several places the first line of each; empty: nobody."""
        while path:
            if path in self._origins:
                return self._origins[path]
            if below := self._below(path):
                return ", ".join(below)
            path = around(path)
        return ""

    def _below(self, path: str) -> list[str]:
        first_lines: dict[str, int] = {}
        inside = (f"{path}.", f"{path}[")
        for origin in [origin for key, origin in self._origins.items() if key.startswith(inside)]:
            place, _, line = origin.rpartition(" line ")
            place, number = (place, int(line)) if place and line.isdecimal() else (origin, 0)
            first_lines[place] = min(number, first_lines.get(place, number))
        return sorted(f"{place} line {line}" if line else place for place, line in first_lines.items())

    def _in_brackets(self, path: str) -> str:
        origin = self.origin(path)
        return f" ({origin})" if origin else ""


def shown(value: Any, path: str, type_: Any) -> str:
    """A wrong value as an error may show it: never a secret, never a whole table, never long."""
    import json

    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Secret) or holds_secret(type_) or re.search(_SENSITIVE, path):
        return _HIDDEN
    if isinstance(value, str):
        from magmobo.kernel.redact import redact_text

        text = redact_text(value)
        text = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
        return json.dumps(text, ensure_ascii=not text.isprintable())
    return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)[:_SHOWN_CHARS]


def _without(secrets: Collection[str], text: str) -> str:
    from magmobo.kernel.redact import redact_text  # its patterns are compiled when somebody needs them

    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    return redact_text(text)
