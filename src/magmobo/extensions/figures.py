"""Figures of extensions: those that they publish, and what their workers use.

Boundary: names come from an extension, so they are bounded in shape and number; what does not fit is left out, and said
once in the extension's log. Source: CONTRACTS section 8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from magmobo.contracts.metrics import Counter, Histogram, Metrics
from magmobo.extensions.installed import Installed

NAMES_PER_EXTENSION = 50
CAPABILITY = "system.metrics"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")


class ExtensionFigures:
    """`holds` says whether a capability is granted now; `say` writes one line into an extension's log."""

    def __init__(
        self, metrics: Metrics, holds: Callable[[Installed, str], bool], say: Callable[[str, str, str], None]
    ) -> None:
        self._metrics, self._holds, self._say = metrics, holds, say
        self._counters: dict[tuple[str, str], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}
        self._refused: set[str] = set()

    def take(self, installed: Installed, name: str, kind: str, value: float) -> None:
        """One value that an extension published; `kind` is `inc` or `observe`."""
        if not (problem := self._problem(installed, name, value)):
            if kind == "inc":
                self._counter(installed.id, name).value += max(0, int(value))
            else:
                self._histogram(installed.id, name).observe(value)
        elif installed.id not in self._refused:
            self._refused.add(installed.id)
            self._say(installed.id, "warning", f"a figure was left out: {problem}")

    def watch(self, extension_id: str, cpu_s: Callable[[], float], memory_bytes: Callable[[], float]) -> None:
        """Show what the worker of an extension uses."""
        labels = {"extension": extension_id}
        self._metrics.gauge("mag_extension_cpu_seconds", "CPU time of the present worker.", cpu_s, labels=labels)
        self._metrics.gauge("mag_extension_memory_bytes", "Memory of the present worker.", memory_bytes, labels=labels)

    def forget(self, extension_id: str) -> None:
        """The extension may be told again of what it does wrong."""
        self._refused.discard(extension_id)

    def _problem(self, installed: Installed, name: str, value: float) -> str:
        if not self._holds(installed, CAPABILITY):
            return f"{CAPABILITY} is not granted"
        if not _NAME.fullmatch(name):
            return "its name is not lower-case words"
        if not math.isfinite(value):
            return "it is no finite number"
        known = {own for owner, own in (*self._counters, *self._histograms) if owner == installed.id}
        if name not in known and len(known) >= NAMES_PER_EXTENSION:
            return f"there are {NAMES_PER_EXTENSION} already"
        return ""

    def _counter(self, extension_id: str, name: str) -> Counter:
        found = self._counters.get((extension_id, name))
        if found is None:
            labels = {"extension": extension_id, "name": name}
            found = self._metrics.counter("mag_extension_published_total", "Counters of extensions.", labels=labels)
            self._counters[extension_id, name] = found
        return found

    def _histogram(self, extension_id: str, name: str) -> Histogram:
        found = self._histograms.get((extension_id, name))
        if found is None:
            labels = {"extension": extension_id, "name": name}
            found = self._metrics.histogram("mag_extension_published", "Distributions of extensions.", labels=labels)
            self._histograms[extension_id, name] = found
        return found
