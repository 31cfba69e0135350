"""The node's filters of subscriptions, for tests of an author: does this event pass `where`?

Boundary: it says what the node would; whether a filter is well formed, `mag extension:validate` says. `$regex` is RE2
in the node and `re` here, which agree on what both take. Source: `docs/extensions.md`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any

_MISSING = object()
_ORDER = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


def passes(where: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether an event of `id`, `topic`, `time_s` and `data` passes. Raises: ValueError for an unknown operator.

    >>> passes({"data.duration_s": {"$gt": 1}}, {"data": {"duration_s": 1.5}})
    True
    """
    return all(_entry(key, operand, event) for key, operand in where.items())


def topic_matches(pattern: str, topic: str) -> bool:
    """Whether a topic or pattern means this topic: `*` is one word, `**` at the end any number.

    >>> topic_matches("database.*", "database.change"), topic_matches("database.*", "database.query.executed")
    (True, False)
    """
    words, parts = pattern.split("."), topic.split(".")
    if words[-1] == "**":
        words = words[:-1]
        return len(parts) >= len(words) and all(map(_word_matches, words, parts))
    return len(words) == len(parts) and all(map(_word_matches, words, parts))


def _word_matches(word: str, part: str) -> bool:
    return word in ("*", part)


def _entry(key: str, operand: Any, event: Mapping[str, Any]) -> bool:
    match key:
        case "$and":
            return all(passes(one, event) for one in operand)
        case "$or":
            return any(passes(one, event) for one in operand)
        case "$not":
            return not passes(operand, event)
    return _tests(operand, _look(key, event))


def _look(path: str, event: Mapping[str, Any]) -> Any:
    value: Any = event
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _tests(operand: Any, value: Any) -> bool:
    if not isinstance(operand, Mapping):
        return _equal(operand, value)
    return all(_test(name, wanted, value) for name, wanted in operand.items())


def _test(name: str, wanted: Any, value: Any) -> bool:
    match name:
        case "$eq":
            return _equal(wanted, value)
        case "$ne":
            return not _equal(wanted, value)
        case "$in":
            return any(_equal(one, value) for one in wanted)
        case "$regex":
            return type(value) is str and re.search(wanted, value) is not None
        case "$not":
            return not _tests(wanted, value)
    if name not in _ORDER:
        raise ValueError(f"no such operator: {name}")
    return _kind(wanted) is _kind(value) and bool(_ORDER[name](value, wanted))


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _equal(wanted: Any, value: Any) -> bool:
    return _kind(wanted) is _kind(value) and bool(wanted == value)
