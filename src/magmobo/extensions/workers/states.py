"""Where a worker is between two questions."""

from __future__ import annotations

from enum import StrEnum


class WorkerState(StrEnum):
    """`NEW` was never started, `IDLE` has no process because nobody asked, `RESTARTING` has none because it ended."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    IDLE = "idle"
    RESTARTING = "restarting"
    DRAINING = "draining"
    ENDED = "ended"
