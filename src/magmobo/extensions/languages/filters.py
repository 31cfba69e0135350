"""Filters of subscriptions: `{"data.duration_s": {"$gt": 1}}` to a predicate over one event.

Every key of a filter counts (and). A key is a path (`data.record.delay`) with a value to equal or a map of operators
(`$eq $ne $gt $gte $lt $lte $in $regex $not`), or `$and`, `$or` with a list of filters, or `$not` with one. Numbers
compare with numbers and texts with texts; nothing else has an order, and `true` is not 1. A path that leads nowhere
has no value: of it only `$ne` and `$not` are true.
Invariant: a compiled filter never raises, whatever the event is, and takes a bounded time: regular expressions are
RE2, and their size and that of the text they see are bounded. Source: CONTRACTS section 6.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from magmobo.extensions.languages.errors import FilterRefused

Predicate = Callable[[Mapping[str, Any]], bool]
_Test = Callable[[Any], bool]

MAX_DEPTH, MAX_CONDITIONS, MAX_CHOICES = 8, 100, 100
MAX_SEGMENTS, MAX_TEXT_CHARS = 12, 1000
ROOTS = ("id", "topic", "time_s", "data")
"""What an event shows to a filter."""
MAX_PATTERN_CHARS, MAX_PATTERN_SIZE, MAX_SEARCHED_CHARS = 200, 256, 1024
"""The instructions of all patterns of a filter together; with the text they see, they bound what one event costs."""

_MISSING: Final = object()
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def compile_filter(where: Mapping[str, Any]) -> Predicate:
    """The predicate of a filter; an empty one takes every event. An event is a
    dict of `ROOTS`, as decoded from JSON or msgpack.

    Raises: FilterRefused, with the place in the filter, for what is not in the language or is too large.

    >>> slow = compile_filter({"topic": "database.query.executed", "data.duration_s": {"$gt": 1}})
    >>> slow({"topic": "database.query.executed", "data": {"duration_s": 1.5}}), slow({"topic": "x", "data": None})
    (True, False)
    """
    return _Compiler().filter(where, "", 0)


class _Compiler:
    """One compilation; counts what the filter is made of."""

    def __init__(self) -> None:
        self._conditions = self._pattern_size = 0

    def filter(self, where: object, place: str, depth: int) -> Predicate:
        if not isinstance(where, Mapping):
            raise FilterRefused(place, "an object was expected")
        if depth > MAX_DEPTH:
            raise FilterRefused(place, f"deeper than {MAX_DEPTH} levels")
        parts = [self._entry(key, operand, place, depth) for key, operand in where.items()]
        if not parts:
            return _everything
        return parts[0] if len(parts) == 1 else _all_of(parts)

    def _entry(self, key: object, operand: Any, place: str, depth: int) -> Predicate:
        if not isinstance(key, str):
            raise FilterRefused(place, "a key is a text")
        here = f"{place}/{key[:100]}"
        self._count(here)
        if key in ("$and", "$or"):
            if not isinstance(operand, list | tuple) or not operand:
                raise FilterRefused(here, "a list of filters was expected")
            parts = [self.filter(one, f"{here}/{at}", depth + 1) for at, one in enumerate(operand)]
            return _all_of(parts) if key == "$and" else _any_of(parts)
        if key == "$not":
            return _negated(self.filter(operand, here, depth + 1))
        if key.startswith("$"):
            raise FilterRefused(here, "no such operator here; there are $and, $or and $not")
        return _at(_path(key, here), self._tests(operand, here, depth + 1))

    def _tests(self, operand: Any, place: str, depth: int) -> _Test:
        if not isinstance(operand, Mapping):
            return _equals(_scalar(operand, place))
        if depth > MAX_DEPTH:
            raise FilterRefused(place, f"deeper than {MAX_DEPTH} levels")
        if not operand:
            raise FilterRefused(place, "no operator")
        tests = [self._test(name, value, f"{place}/{str(name)[:100]}", depth) for name, value in operand.items()]
        return tests[0] if len(tests) == 1 else _all_of(tests)

    def _test(self, name: object, value: Any, place: str, depth: int) -> _Test:
        self._count(place)
        match name:
            case "$eq":
                return _equals(_scalar(value, place))
            case "$ne":
                return _negated(_equals(_scalar(value, place)))
            case "$gt" | "$gte" | "$lt" | "$lte":
                return _ordered(_ORDER[name], _scalar(value, place), place)
            case "$in":
                return _one_of(value, place)
            case "$regex":
                return self._regex(value, place)
            case "$not":
                return _negated(self._tests(value, place, depth + 1))
        raise FilterRefused(place, "no such operator")

    def _regex(self, pattern: object, place: str) -> _Test:
        import re2  # type: ignore[import-untyped]  # 10 ms, for the filters that have one

        if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN_CHARS:
            raise FilterRefused(place, f"a pattern of 1 to {MAX_PATTERN_CHARS} characters was expected")
        options = re2.Options()
        options.max_mem, options.log_errors, options.never_capture = 1 << 20, False, True
        try:
            compiled = re2.compile(pattern.encode(), options)
        except (re2.error, UnicodeEncodeError):
            raise FilterRefused(place, "not a regular expression as RE2 has them") from None
        self._pattern_size += compiled.programsize
        if self._pattern_size > MAX_PATTERN_SIZE:
            raise FilterRefused(place, "the patterns of the filter are too large; mind counted repetitions")
        search = compiled.search
        return lambda value: type(value) is str and search(_bytes(value)) is not None

    def _count(self, place: str) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise FilterRefused(place, f"more than {MAX_CONDITIONS} conditions")


def _path(text: str, place: str) -> tuple[str, ...]:
    segments = tuple(text.split("."))
    if len(segments) > MAX_SEGMENTS or len(text) > MAX_TEXT_CHARS or not all(segments):
        raise FilterRefused(place, f"a path of 1 to {MAX_SEGMENTS} names with dots between was expected")
    if segments[0] not in ROOTS or (len(segments) > 1) != (segments[0] == "data"):
        raise FilterRefused(place, "a path is id, topic, time_s, or begins with `data.`")
    return segments


def _scalar(value: Any, place: str) -> Any:
    if value is not None and type(value) not in (bool, int, float, str):
        raise FilterRefused(place, "a text, a number, true, false or null was expected")
    if type(value) is str and len(value) > MAX_TEXT_CHARS:
        raise FilterRefused(place, f"a text longer than {MAX_TEXT_CHARS} characters")
    if type(value) is float and value - value != 0:
        raise FilterRefused(place, "not a finite number")
    return value


def _everything(_: Any) -> bool:
    return True


def _all_of(tests: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return lambda value: all(test(value) for test in tests)


def _any_of(tests: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return lambda value: any(test(value) for test in tests)


def _negated(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: not test(value)


def _at(path: tuple[str, ...], test: _Test) -> Predicate:
    def look(event: Mapping[str, Any]) -> bool:
        value: Any = event
        for name in path:
            if not isinstance(value, dict) or (value := value.get(name, _MISSING)) is _MISSING:
                return test(_MISSING)
        return test(value)

    return look


def _kind(value: Any) -> type:
    """Values of different kinds are never equal; a whole number and a fraction are of one."""
    return float if type(value) is int else type(value)


def _equals(wanted: Any) -> _Test:
    kind = _kind(wanted)
    return lambda value: _kind(value) is kind and bool(value == wanted)


def _ordered(compare: Callable[[Any, Any], bool], limit: Any, place: str) -> _Test:
    kind = _kind(limit)
    if kind not in (float, str):
        raise FilterRefused(place, "only numbers and texts have an order")
    return lambda value: _kind(value) is kind and compare(value, limit)


def _one_of(choices: Any, place: str) -> _Test:
    if not isinstance(choices, list | tuple) or not 0 < len(choices) <= MAX_CHOICES:
        raise FilterRefused(place, f"a list of 1 to {MAX_CHOICES} values was expected")
    wanted = {(_kind(one), _scalar(one, f"{place}/{at}")) for at, one in enumerate(choices)}
    kinds = frozenset(kind for kind, _ in wanted)
    return lambda value: (kind := _kind(value)) in kinds and (kind, value) in wanted


def _bytes(text: str) -> bytes:
    return text[:MAX_SEARCHED_CHARS].encode(errors="replace")
