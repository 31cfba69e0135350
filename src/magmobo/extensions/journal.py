"""What extensions logged, the newest lines of each, for `mag extension:logs`; every line also goes to the node's log.

Invariant: bounded by lines and by the size of a line, whatever an extension says; one that says too much loses its own
lines, and is told how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from magmobo.contracts.extensions import ExtensionLog, LogLine

if TYPE_CHECKING:
    import structlog

LINES_KEPT = 1000
CHARS_KEPT = 1_000_000
"""Of one extension, however few lines that are."""
LINES_PER_SECOND = 100
MESSAGE_CHARS = 2000
FIELDS = 20
KEY_CHARS = 60
FIELD_CHARS = 500
TRACE, TRACE_CHARS = "trace", 4000
"""Where an error was raised is worth more room, and its end most."""
HIDDEN_CHARS = 1000
"""A text is cut to so much more before secrets are taken out of it: of half a one nobody would know that it is one."""
LEVELS = ("debug", "info", "warning", "error")


class _Pages:
    def __init__(self) -> None:
        self.lines: deque[tuple[int, LogLine]] = deque()
        self.number = self.chars = 0
        self.second, self.in_second, self.left_out = 0, 0, 0
        self.grown = asyncio.Event()

    def add(self, line: LogLine) -> None:
        if len(self.lines) == LINES_KEPT:
            self._drop()
        self.number += 1
        self.lines.append((self.number, line))
        self.chars += _chars(line)
        while self.chars > CHARS_KEPT:
            self._drop()
        self.grown.set()

    def _drop(self) -> None:
        self.chars -= _chars(self.lines.popleft()[1])


class ExtensionJournal:
    """The log of every extension. `log` is the node's; `hide` takes secrets out of what people see."""

    def __init__(
        self, log: structlog.stdlib.BoundLogger, time_s: Callable[[], float], hide: Callable[[str], str]
    ) -> None:
        self._log, self._time_s, self._hide = log, time_s, hide
        self._pages: dict[str, _Pages] = {}

    def add(self, extension_id: str, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """One line of an extension; what is too long is cut, what is too often is counted and left out."""
        pages = self._pages.setdefault(extension_id, _Pages())
        now_s = self._time_s()
        if int(now_s) != pages.second:
            pages.second, pages.in_second = int(now_s), 0
            if pages.left_out:
                said, pages.left_out = f"{pages.left_out} lines were left out: more than {LINES_PER_SECOND} a second", 0
                self._write(pages, extension_id, now_s, "warning", said, {})
        pages.in_second += 1
        if pages.in_second > LINES_PER_SECOND:
            pages.left_out += 1
            return
        known = level if level in LEVELS else "info"
        cut = {self._cut(str(key), KEY_CHARS): self._value(key, str(value)) for key, value in _first(fields)}
        self._write(pages, extension_id, now_s, known, self._cut(message, MESSAGE_CHARS), cut)

    async def read(self, extension_id: str, *, after: int, limit: int, wait_s: float) -> ExtensionLog:
        """At most `limit` lines behind `after`, waiting up to `wait_s` for the first."""
        pages = self._pages.setdefault(extension_id, _Pages())
        after = after if after <= pages.number else 0  # of the node as it was before it started again
        if pages.number <= after and wait_s > 0:
            pages.grown.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await pages.grown.wait()
            except TimeoutError:
                return ExtensionLog([], after)
        found = [(number, line) for number, line in pages.lines if number > after]
        # Whoever begins wants the newest; whoever goes on wants the next.
        found = found[-limit:] if after == 0 else found[:limit]
        return ExtensionLog([line for _, line in found], found[-1][0] if found else after)

    def forget(self, extension_id: str) -> None:
        """The extension is gone."""
        self._pages.pop(extension_id, None)

    def _value(self, key: str, value: str) -> str:
        if key == TRACE:
            return self._hide(value[-TRACE_CHARS - HIDDEN_CHARS :])[-TRACE_CHARS:]
        return self._cut(value, FIELD_CHARS)

    def _cut(self, text: str, chars: int) -> str:
        return self._hide(text[: chars + HIDDEN_CHARS])[:chars]

    def _write(
        self, pages: _Pages, extension_id: str, now_s: float, level: str, message: str, fields: Mapping[str, str]
    ) -> None:
        at = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        pages.add(LogLine(at, level, message, dict(fields)))
        getattr(self._log, level)(message, extension=extension_id, said=dict(fields))


def _chars(line: LogLine) -> int:
    return len(line.message) + sum(len(key) + len(value) for key, value in line.fields.items())


def _first(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [pair for pair, _ in zip(fields.items(), range(FIELDS), strict=False)]
