"""Denied calls on record: the first of each kind at once, then one record a second that says how many there were.

A denied call costs its sender nothing, a record costs a sync and stays for ever. Kinds are few, because they are made
of names that the node knows. Boundary: no decision.
"""

from __future__ import annotations

import asyncio

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.events import SecurityCapabilityDenied
from magmobo.contracts.metrics import Metrics
from magmobo.extensions.gate.outbox import AuditOutbox, actor_of

EVERY_S = 1.0
Kind = tuple[str, str, str, str]


class Denials:
    """Of all extensions of a node."""

    def __init__(self, clock: Clock, outbox: AuditOutbox, bus: Bus, metrics: Metrics) -> None:
        self._clock, self._outbox, self._bus, self._metrics = clock, outbox, bus, metrics
        self._last_s: dict[Kind, float] = {}
        self._unsaid: dict[Kind, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, extension_id: str, capability: str, method: str, reason: str) -> None:
        """One call was denied. `reason` is one word."""
        labels = {"extension": extension_id}
        self._metrics.counter("mag_extension_denied_total", "Calls denied to extensions.", labels=labels).inc()
        kind = (extension_id, capability, method, reason)
        last_s = self._last_s.get(kind)
        if last_s is None or self._clock.monotonic_s() - last_s >= EVERY_S:
            self._say(kind, 1 + self._unsaid.pop(kind, 0))
            return
        self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.flush)

    def flush(self) -> None:
        """Put on record what was only counted so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        unsaid, self._unsaid = self._unsaid, {}
        for kind, count in unsaid.items():
            self._say(kind, count)

    def forget(self, extension_id: str) -> None:
        """The extension is gone."""
        self.flush()
        for kind in [kind for kind in self._last_s if kind[0] == extension_id]:
            del self._last_s[kind]

    def _say(self, kind: Kind, count: int) -> None:
        self._last_s[kind] = self._clock.monotonic_s()
        extension_id, capability, method, reason = kind
        actor = actor_of(extension_id)
        said = {"capability": capability, "method": method, "reason": reason, "count": count}
        self._outbox.put("extension.denied", actor, said)
        self._bus.emit(SecurityCapabilityDenied(capability=capability, actor=actor.name, context=method))
