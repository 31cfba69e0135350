"""Figures of extensions: those that they publish, and what their workers use.

Boundary: names come from an extension, so they are bounded in shape and number; what does not fit is left out, and said
once in the extension's log. Source: CONTRACTS section 8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from magmobo.contracts.metrics import Counter, Histogram, Metrics
from magmobo.extensions.installed import Installed

NAMES_PER_EXTENSION = 50
MAX_VALUE = 1e15
"""Of one value. Sums of any number of them stay numbers that can be written down."""
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
        self._memory_bytes: dict[str, float] = {}
        self._cpu_s: dict[str, float] = {}
        self._cpu: dict[str, Counter] = {}

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

    def sample(self, used: Mapping[str, Mapping[str, float]]) -> None:
        """What the workers of this node use now, by extension: `cpu_s` since the process began, `memory_bytes`."""
        for extension_id in used.keys() - self._memory_bytes.keys():
            self._show(extension_id)
        for extension_id in self._memory_bytes:
            now = used.get(extension_id, {})
            self._memory_bytes[extension_id] = now.get("memory_bytes", 0.0)
            cpu_s, before_s = now.get("cpu_s", 0.0), self._cpu_s.get(extension_id, 0.0)
            # A process that began anew counts from nothing.
            self._cpu[extension_id].value += cpu_s - before_s if cpu_s >= before_s else cpu_s
            self._cpu_s[extension_id] = cpu_s

    def _show(self, extension_id: str) -> None:
        labels = {"extension": extension_id}
        self._memory_bytes[extension_id] = 0.0
        self._cpu[extension_id] = self._metrics.counter(
            "mag_extension_cpu_seconds_total", "CPU time of workers.", labels=labels
        )
        self._metrics.gauge(
            "mag_extension_memory_bytes",
            "Memory of the worker.",
            lambda: self._memory_bytes[extension_id],
            labels=labels,
        )

    def forget(self, extension_id: str) -> None:
        """The extension may be told again of what it does wrong."""
        self._refused.discard(extension_id)

    def _problem(self, installed: Installed, name: str, value: float) -> str:
        if not self._holds(installed, CAPABILITY):
            return f"{CAPABILITY} is not granted"
        if not _NAME.fullmatch(name):
            return "its name is not lower-case words"
        if not abs(value) <= MAX_VALUE:
            return f"it is no finite number up to {MAX_VALUE:g}"
        if (installed.id, name) in self._counters or (installed.id, name) in self._histograms:
            return ""
        known = {own for owner, own in (*self._counters, *self._histograms) if owner == installed.id}
        return f"there are {NAMES_PER_EXTENSION} already" if len(known) >= NAMES_PER_EXTENSION else ""

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
