"""The log of the kernel itself, which must not load structlog (60 ms) before somebody wants to read lines.

Below warning a line is dropped while structlog is not loaded, because then nobody has configured logging; from warning
on it is loaded. `mag up` configures logging before the kernel boots, so a node loses nothing.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

_ALWAYS = ("warning", "error", "exception", "critical")


class QuietLog:
    """Has the methods of a structlog logger that is bound to `fields`."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def bind(self, **fields: Any) -> QuietLog:
        """The same log with more fields on every line."""
        return QuietLog(**(self._fields | fields))

    def __getattr__(self, level: str) -> Any:
        return partial(self._log, level)

    def _log(self, level: str, event: str, **fields: Any) -> None:
        if level not in _ALWAYS and "structlog" not in sys.modules:
            return
        import structlog

        getattr(structlog.get_logger().bind(**self._fields), level)(event, **fields)
