"""Names, quotes and JSON paths of the URL grammar, at a position in one parameter. No I/O."""

from __future__ import annotations

import re
from typing import NoReturn

from magmobo.components.maggate.errors import InvalidQuery, TooMuch
from magmobo.components.maggate.query import Field, JsonStep

MAX_JSON_STEPS = 8

# A bare name may hold anything but the grammar's own marks; `->` ends it, a single `-` does not.
_NAME = re.compile(r'(?:[^",.:()!*<>=&|{}\[\]\\\x00-\x1f\x7f-]|-(?!>))+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LIST_VALUE = re.compile(r"\{[^{}]*\}(?=[,)])|[^,)]*")
_LOOSE_WORD = re.compile(r"[a-z_]{1,20}")
_STEP = re.compile(r"->>?")
_INDEX = re.compile(r"-?[0-9]{1,9}(?![^,.:)\->])")
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Scanner:
    """A position in one parameter's text; `where` names the parameter in errors."""

    def __init__(self, text: str, where: str, values: list[bytes]) -> None:
        self.text, self.where, self.values = text, where, values
        self.position = 0

    def fail(self, reason: str) -> NoReturn:
        raise InvalidQuery(self.where, f"{reason} at character {self.position + 1} of '{self.text[:80]}'")

    def slot(self, value: str) -> int:
        self.values.append(value.encode())
        return len(self.values) - 1

    def at_end(self) -> bool:
        return self.position >= len(self.text)

    def sees(self, mark: str) -> bool:
        return self.text.startswith(mark, self.position)

    def take(self, mark: str) -> bool:
        if self.text.startswith(mark, self.position):
            self.position += len(mark)
            return True
        return False

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            self.fail(f"expected '{mark}'")

    def match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def quoted(self) -> str | None:
        found = _QUOTED.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return _UNESCAPE.sub(r"\1", found.group(1))

    def name(self) -> str:
        """A bare or quoted name."""
        name = self.quoted() if self.sees('"') else (self.match(_NAME) or "").strip()
        if not name:
            self.fail("expected a name")
        return name

    def steps(self) -> tuple[JsonStep, ...]:
        steps: list[JsonStep] = []
        while arrow := self.match(_STEP):
            index = self.match(_INDEX)
            key = index if index is not None else self.name()
            steps.append(JsonStep(self.slot(key), as_text=arrow == "->>", is_index=index is not None))
            if len(steps) > MAX_JSON_STEPS:
                raise TooMuch("steps in a JSON path", MAX_JSON_STEPS)
        return tuple(steps)

    def field(self) -> Field:
        name = self.name()
        return Field(name, self.steps() if self.sees("->") else ())

    def word(self) -> str:
        """A short lower-case word, such as an operator; empty when there is none."""
        return self.match(_LOOSE_WORD) or ""

    def list_value(self) -> str:
        """One value inside parentheses: quoted, an array in braces, or everything up to a comma or parenthesis."""
        if not self.sees('"'):
            return self.match(_LIST_VALUE) or ""
        quoted = self.quoted()
        if quoted is None:
            self.fail("a quote is not closed")
        return quoted
