"""Calls that were refused, among the records of calls: within 100 ms, then at the distances of `pace`, each with their
number.

What is let through is bounded by rates and is on record every 100 ms (`ledger`); what is refused is bounded by nothing
but its sender's speed, so it has records of its own, or a flood would fill the log. Boundary: no decision.
"""

from __future__ import annotations

import asyncio

from magmobo.contracts.clock import Clock
from magmobo.contracts.metrics import Counter
from magmobo.extensions.gate.ledger import BATCH_S, Ledger
from magmobo.extensions.gate.outbox import PLANE, AuditOutbox
from magmobo.extensions.gate.pace import Pace


class _Refused:
    """Of one extension: method -> calls since the last record. There are as many as the node has methods."""

    __slots__ = ("counter", "methods", "pace", "timer")

    def __init__(self, counter: Counter) -> None:
        self.counter, self.pace = counter, Pace()
        self.methods: dict[str, int] = {}
        self.timer: asyncio.TimerHandle | None = None


class Refusals:
    """Of all extensions of a node."""

    def __init__(self, clock: Clock, outbox: AuditOutbox, ledger: Ledger) -> None:
        self._clock, self._outbox, self._ledger = clock, outbox, ledger
        self._extensions: dict[str, _Refused] = {}

    def note(self, extension_id: str, method: str) -> None:
        """One call was refused."""
        refused = self._extensions.get(extension_id)
        if refused is None:
            refused = self._extensions[extension_id] = _Refused(self._ledger.counter(extension_id, "refused"))
        refused.counter.value += 1
        refused.methods[method] = refused.methods.get(method, 0) + 1
        if refused.timer is None:
            wait_s = max(BATCH_S, refused.pace.due_s(self._clock.monotonic_s()))
            refused.timer = asyncio.get_running_loop().call_later(wait_s, self._say, extension_id)

    def flush(self) -> None:
        """Put on record what was only counted so far."""
        for extension_id in self._extensions:
            self._say(extension_id)

    def forget(self, extension_id: str) -> None:
        """The extension is gone."""
        self._say(extension_id)
        self._extensions.pop(extension_id, None)

    def _say(self, extension_id: str) -> None:
        refused = self._extensions.get(extension_id)
        if refused is None or refused.timer is None:
            return
        refused.timer.cancel()
        refused.timer = None
        methods, refused.methods = refused.methods, {}
        refused.pace.wrote(self._clock.monotonic_s())
        about = {"extension": extension_id, "kind": "api", "result": "refused"}
        self._outbox.put("extension.calls", PLANE, {"calls": [
            {**about, "name": method, "count": count, "total_ms": 0.0, "max_ms": 0.0}
            for method, count in methods.items()
        ]})  # fmt: skip
