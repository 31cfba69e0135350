"""Denied calls on record: the first of each kind at once, then at the distances of `pace`, each with their number.

Kinds are few, because they are made of names that the node knows. What is counted and not on record yet is lost with a
node that is killed. Boundary: no decision.
"""

from __future__ import annotations

import asyncio

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.events import SecurityCapabilityDenied
from magmobo.contracts.metrics import Metrics
from magmobo.extensions.gate.outbox import AuditOutbox, actor_of
from magmobo.extensions.gate.pace import FIRST_S, Pace

Kind = tuple[str, str, str, str]


class Denials:
    """Of all extensions of a node."""

    def __init__(self, clock: Clock, outbox: AuditOutbox, bus: Bus, metrics: Metrics) -> None:
        self._clock, self._outbox, self._bus, self._metrics = clock, outbox, bus, metrics
        self._paces: dict[Kind, Pace] = {}
        self._unsaid: dict[Kind, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, extension_id: str, capability: str, method: str, reason: str) -> None:
        """One call was denied. `reason` is one word."""
        labels = {"extension": extension_id}
        self._metrics.counter("mag_extension_denied_total", "Calls denied to extensions.", labels=labels).inc()
        kind = (extension_id, capability, method, reason)
        self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
        self._say_if_due(kind)
        if self._unsaid and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FIRST_S, self._look)

    def flush(self) -> None:
        """Put on record what was only counted so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for kind in list(self._unsaid):
            self._say(kind)

    def forget(self, extension_id: str) -> None:
        """The extension is gone."""
        self.flush()
        for kind in [kind for kind in self._paces if kind[0] == extension_id]:
            del self._paces[kind]

    def _look(self) -> None:
        for kind in list(self._unsaid):
            self._say_if_due(kind)
        self._timer = asyncio.get_running_loop().call_later(FIRST_S, self._look) if self._unsaid else None

    def _say_if_due(self, kind: Kind) -> None:
        pace = self._paces.setdefault(kind, Pace())
        if pace.due_s(self._clock.monotonic_s()) <= 0:
            self._say(kind)

    def _say(self, kind: Kind) -> None:
        count = self._unsaid.pop(kind)
        self._paces.setdefault(kind, Pace()).wrote(self._clock.monotonic_s())
        extension_id, capability, method, reason = kind
        actor = actor_of(extension_id)
        said = {"capability": capability, "method": method, "reason": reason, "count": count}
        self._outbox.put("extension.denied", actor, said)
        self._bus.emit(SecurityCapabilityDenied(capability=capability, actor=actor.name, context=method))
