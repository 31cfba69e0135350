"""Says once that the database went away and once that it is back, however many connections notice."""

from __future__ import annotations

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.events import DatabaseConnectionFailed, DatabaseConnectionRecovered


class Outage:
    """`since_s` is None while the database answers, else monotonic seconds of the first failure."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus, self._clock = bus, clock
        self.since_s: float | None = None
        self.error = ""

    def begin(self, error: Exception) -> None:
        """The database does not answer any more."""
        self.error = " ".join(str(error).split())[:500]
        if self.since_s is None:
            self.since_s = self._clock.monotonic_s()
            self._bus.emit(DatabaseConnectionFailed(self.error))

    def end(self) -> None:
        """It answers."""
        if self.since_s is not None:
            outage_s, self.since_s = self._clock.monotonic_s() - self.since_s, None
            self._bus.emit(DatabaseConnectionRecovered(outage_s))
