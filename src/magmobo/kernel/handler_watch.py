"""What the bus tells about event handlers: their failures go into the log, their durations into the figures."""

from __future__ import annotations

from collections.abc import Callable

from magmobo.kernel.errors import describe
from magmobo.kernel.observe.metrics import MetricsRegistry
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.services import KERNEL

_HELP = "Duration of event handlers, of a sample of their calls."


class HandlerWatch:
    """Of one bus, which is there before the figures are."""

    def __init__(self, metrics: Callable[[], MetricsRegistry], log: QuietLog) -> None:
        self._metrics, self._log = metrics, log

    def took(self, topic: str, duration_s: float) -> None:
        """A handler returned."""
        metrics = self._metrics().scoped(KERNEL)
        metrics.histogram("mag_bus_handler_seconds", _HELP, labels={"topic": topic}).observe(duration_s)

    def failed(self, owner: str, topic: str, handler: str, error: BaseException) -> None:
        """A handler raised."""
        self._log.error(
            "event handler failed", owner=owner, topic=topic, handler=handler, error=describe(error), exc_info=error
        )
