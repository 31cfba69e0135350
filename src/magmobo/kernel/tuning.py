"""Lets changed settings of the node itself count while it runs: plain attributes are set, nothing waits, nothing fails.

Boundary: called in the one turn of the loop in which a reload takes effect. What the process around the kernel must do
(its log, its operators' token, its file watch) is its own to do, in `on_change`.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.config.core import ObservabilityConfig
from magmobo.kernel.config.loader import Config
from magmobo.kernel.current import Current
from magmobo.kernel.errors import describe
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.services import Services
from magmobo.kernel.stages import Stages

OnCoreChange = Callable[[Config, Set[str]], None]
"""Given the configuration that counts from now on, and the whole keys of core sections that changed; must not wait."""


class Tuning:
    """Of one kernel. `current` holds the new configuration already when `apply` is called."""

    def __init__(
        self,
        current: Current,
        stages: Stages,
        services: Services,
        bus: EventBus,
        log: QuietLog,
        on_change: OnCoreChange | None,
    ) -> None:
        self._current, self._stages, self._services, self._bus = current, stages, services, bus
        self._log, self._on_change = log, on_change

    def apply(self, changed: Set[str]) -> None:
        """Take over the core settings; `changed` are whole keys."""
        if not changed:
            return
        self._stages.tune()
        self._services.tune(self._current.section("security"), self._current.section("cache"))
        if "observability.events_kept" in changed:
            observability: ObservabilityConfig = self._current.section("observability")
            self._bus.remember(observability.events_kept)
        if self._on_change is None:
            return
        try:
            self._on_change(self._current.config, changed)
        except Exception as error:  # every component has taken its settings: there is no way back from here
            self._log.error("changed settings of the node did not take effect", error=describe(error), exc_info=error)
