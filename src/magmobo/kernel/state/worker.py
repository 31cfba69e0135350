"""A thread that takes whatever waits, in order, and hands it to one function: the loop never waits for a disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
MAX_AT_ONCE = 256


class Worker(Generic[T]):
    """`handle(jobs)` runs in a thread of its own, must not raise, and gets 1 to 256 jobs at a time, oldest first."""

    def __init__(self, name: str, handle: Callable[[Sequence[T]], None]) -> None:
        self._handle = handle
        self._jobs: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        # A daemon: a disk that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: T) -> None:
        """Queue one job; nothing may be queued after `stop`."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End after what waits now."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch: list[T] = [job]
            is_last = False
            with suppress(queue.Empty):
                while len(batch) < MAX_AT_ONCE and not is_last:
                    following = self._jobs.get_nowait()
                    if following is None:
                        is_last = True
                    else:
                        batch.append(following)
            self._handle(batch)
            del job, batch  # an idle thread keeps nothing alive
            if is_last:
                return
