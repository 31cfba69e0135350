"""How often one component may still be restarted: an intensity in a window, on the monotonic clock. No I/O, no waiting.

Invariant: `restarts` attempts that did not bring the component back use the budget up, however long each of them took;
a component that ran for `window_s` since its last attempt has all of it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from magmobo.kernel.config.core import RecoveryConfig

if TYPE_CHECKING:
    from random import Random


class Budget:
    """The restarts of one component. Times are monotonic seconds; `random` None: a source of its own."""

    def __init__(self, config: RecoveryConfig, random: Random | None) -> None:
        from random import Random  # no start needs it

        self._config, self._random = config, random or Random()  # noqa: S311 - for pauses
        self._spent_s: list[float] = []

    def tune(self, config: RecoveryConfig) -> None:
        """Count by these settings from now on."""
        self._config = config

    def spent(self, now_s: float) -> int:
        """Attempts inside the window."""
        return sum(now_s - at_s <= self._config.window_s for at_s in self._spent_s)

    def left(self, now_s: float) -> int:
        """Attempts that may still be made now."""
        return max(self._config.restarts - self.spent(now_s), 0)

    def pause_s(self, now_s: float) -> float:
        """How long to wait before the next attempt: doubled by each one in the window, with jitter, so that many
        components that fail together do not come back together.
        """
        config = self._config
        pause_s = min(config.backoff_s * 2.0 ** self.spent(now_s), config.backoff_max_s)
        return pause_s * (1 + self._random.uniform(-config.jitter, config.jitter))

    def spend(self, now_s: float) -> None:
        """An attempt begins."""
        self._spent_s = [at_s for at_s in self._spent_s if now_s - at_s <= self._config.window_s]
        self._spent_s.append(now_s)

    def missed(self, now_s: float) -> None:
        """The last attempt did not bring the component back: the window begins with this end, for all of them.

        Counted from their begins, attempts that each hang until a deadline of the length of the window would never be
        too many (systemd issue 10529 is the same trap).
        """
        self._spent_s = [now_s] * len(self._spent_s)

    def reset(self) -> None:
        """The full budget again."""
        self._spent_s.clear()
