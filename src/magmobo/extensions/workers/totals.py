"""What a worker did, over all its lives. No I/O of its own: a process is asked what it uses."""

from __future__ import annotations

from magmobo.extensions.workers.life import Life


class Totals:
    """Counts of the lives that are over."""

    def __init__(self) -> None:
        self._calls = self._timeouts = self._asked = 0

    def add(self, life: Life) -> None:
        """This life is over."""
        self._calls += life.link.last_id
        self._timeouts += life.link.timeouts
        self._asked += life.api.asked

    def with_life(self, life: Life | None) -> dict[str, float]:
        """All counts, with those of the life that goes on: calls of it, those it did not answer in time, questions it
        asked; calls under way and waiting; CPU seconds and bytes of its process.
        """
        if life is None:
            now = dict.fromkeys(("in_flight", "waiting", "cpu_s", "memory_bytes"), 0.0)
            return {"calls": self._calls, "timeouts": self._timeouts, "asked": self._asked, **now}
        usage = life.process.usage()
        return {
            "calls": self._calls + life.link.last_id,
            "timeouts": self._timeouts + life.link.timeouts,
            "asked": self._asked + life.api.asked,
            "in_flight": life.link.window.used,
            "waiting": life.link.window.waiting,
            "cpu_s": usage.cpu_s,
            "memory_bytes": usage.memory_bytes,
        }
