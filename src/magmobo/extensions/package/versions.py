"""Semantic versions and ranges of them: `^1.4`, `~1.4.2`, `>=1.2 <3`, `1.x`, `*`, joined by `||`.

A range is alternatives (`||`) of conditions that hold together (blanks or commas between them). A version with a
pre-release part lies in a range only when one of the conditions names a pre-release of the same three numbers, so that
nobody gets `2.0.0-rc.1` who asked for `>=1`. Boundary: text in, answers out.
Source: https://semver.org/spec/v2.0.0.html; the operators are those of npm's ranges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magmobo.extensions.package.errors import VersionInvalid

if TYPE_CHECKING:
    from semver import Version

MAX_VERSION_CHARS = 60
MAX_RANGE_CHARS = 100
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-[0-9A-Za-z.-]{{1,40}})?(?:\+[0-9A-Za-z.-]{{1,40}})?")
_CONDITION = re.compile(
    rf"(\^|~|>=|<=|>|<|=)?\s*({_NUMBER}|[*x])(?:\.({_NUMBER}|[*x]))?(?:\.({_NUMBER}|[*x]))?(-[0-9A-Za-z.-]+)?"
)
_BETWEEN = re.compile(r"(?:\s*,\s*|\s+)")


@dataclass(frozen=True, slots=True)
class _Span:
    """Versions from `low` on, below `high`; None: no bound. `low_open`: `low` itself is not in it."""

    low: Version | None
    high: Version | None
    low_open: bool = False
    high_closed: bool = False

    def holds(self, version: Version) -> bool:
        if self.low is not None and (version < self.low or (self.low_open and version.compare(self.low) == 0)):
            return False
        if self.high is None:
            return True
        return version < self.high or (self.high_closed and version.compare(self.high) == 0)

    def names_prerelease_of(self, version: Version) -> bool:
        return any(
            bound is not None and bound.prerelease and bound.to_tuple()[:3] == version.to_tuple()[:3]
            for bound in (self.low, self.high)
        )


@dataclass(frozen=True, slots=True)
class Range:
    """A set of versions."""

    text: str
    alternatives: tuple[tuple[_Span, ...], ...]

    def allows(self, version: Version, *, prereleases: bool = False) -> bool:
        """Whether `version` lies in it. `prereleases`: count those by their order alone."""
        return any(
            all(span.holds(version) for span in spans)
            and (prereleases or not version.prerelease or any(span.names_prerelease_of(version) for span in spans))
            for spans in self.alternatives
        )


def parse_version(text: str) -> Version:
    """A semantic version, all three numbers of it. Raises: VersionInvalid.

    >>> parse_version("1.10.0") > parse_version("1.9.9")
    True
    """
    from semver import Version

    if len(text) > MAX_VERSION_CHARS or _VERSION.fullmatch(text) is None:
        raise VersionInvalid(text, "semantic version such as 1.4.0")
    try:
        return Version.parse(text)
    except ValueError as error:  # such as a leading zero in the pre-release part
        raise VersionInvalid(text, "semantic version such as 1.4.0") from error


def parse_range(text: str) -> Range:
    """A range of versions; empty text is any. Raises: VersionInvalid.

    >>> parse_range("^1.4 || 3.x").allows(parse_version("1.9.2"))
    True
    >>> parse_range("~1.4.2").allows(parse_version("1.5.0"))
    False
    """
    if len(text) > MAX_RANGE_CHARS:
        raise VersionInvalid(text, f"range of at most {MAX_RANGE_CHARS} characters")
    return Range(text, tuple(_alternative(part.strip(), text) for part in text.split("||")))


def _alternative(part: str, whole: str) -> tuple[_Span, ...]:
    if not part:
        if whole.strip():
            raise VersionInvalid(whole, "range: one side of || is empty")
        part = "*"
    spans, position = [], 0
    while True:
        found = _CONDITION.match(part, position)
        if found is None:
            raise VersionInvalid(whole, "range of versions")
        spans.append(_span(found, whole))
        position = found.end()
        if position == len(part):
            return tuple(spans)
        between = _BETWEEN.match(part, position)
        if between is None:
            raise VersionInvalid(whole, "range of versions")
        position = between.end()


def _span(found: re.Match[str], whole: str) -> _Span:
    operator, *words, prerelease = found.groups()
    numbers: list[int] = []
    for word in words:
        if word in (None, "*", "x"):
            break
        numbers.append(int(word))
    if any(word not in (None, "*", "x") for word in words[len(numbers) :]):
        raise VersionInvalid(whole, "range: a number follows a `*`")
    if prerelease and len(numbers) < 3:
        raise VersionInvalid(whole, "range: a pre-release needs all three numbers")
    if not numbers:
        return _nothing() if operator in ("<", ">") else _Span(None, None)
    low = parse_version(".".join(map(str, (*numbers, 0, 0)[:3])) + (prerelease or ""))
    return _bounded(operator or "=", numbers, low)


def _bounded(operator: str, numbers: list[int], low: Version) -> _Span:
    """`numbers` are those that were written; `low` the first version that they mean."""
    whole = len(numbers) == 3
    match operator:
        case ">=":
            return _Span(low, None)
        case "<":
            return _Span(None, low)
        case ">":
            return _Span(low, None, low_open=True) if whole else _Span(_next(numbers, len(numbers), ""), None)
        case "<=":
            return _Span(None, low, high_closed=True) if whole else _Span(None, _next(numbers, len(numbers)))
        case "~":
            return _Span(low, _next(numbers, min(2, len(numbers))))
        case "^":
            kept = next((place + 1 for place, number in enumerate(numbers) if number), len(numbers))
            return _Span(low, _next(numbers, kept))
    return _Span(low, low, high_closed=True) if whole else _Span(low, _next(numbers, len(numbers)))


def _next(numbers: list[int], kept: int, prerelease: str = "-0") -> Version:
    """The first version whose first `kept` numbers are higher than these, its pre-releases included."""
    raised = [*numbers[: kept - 1], numbers[kept - 1] + 1]
    return parse_version(".".join(map(str, (*raised, 0, 0)[:3])) + prerelease)


def _nothing() -> _Span:
    return _Span(None, parse_version("0.0.0-0"))
