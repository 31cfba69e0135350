"""How many frames a worker may send of its own accord: questions, lines of its log, figures.

They cost the node's loop time, asked for or not, granted or refused; a large one counts as several. Each answer it
gives earns some, so an honest extension that logs and counts in every hook never runs out; one that floods is not read
from for a moment, which costs its own calls time and nobody else's. Boundary: no I/O.
"""

from __future__ import annotations

BURST = 1000.0
PER_ANSWER = 4.0
LEAST_PER_S = 500.0


class Credit:
    """Frames that one worker has left. `per_s` is how fast more come by themselves."""

    __slots__ = ("_as_of_s", "_left", "per_s")

    def __init__(self, now_s: float, per_s: float = LEAST_PER_S) -> None:
        self._as_of_s, self._left, self.per_s = now_s, BURST, per_s

    def spend(self, frames: int, answers: int, now_s: float) -> float:
        """Take `frames`, having had `answers` since the last time; seconds in which it is not to be read from."""
        earned = (now_s - self._as_of_s) * self.per_s + answers * PER_ANSWER
        self._as_of_s = now_s
        self._left = min(BURST, self._left + earned) - frames
        return max(0.0, -self._left / self.per_s)
