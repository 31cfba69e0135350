"""SIGTERM, SIGINT and SIGHUP of a node: the first asks it to drain, a second SIGTERM or SIGINT ends it at once.

They are plain Python signal handlers and not the loop's, so that the second one also ends a node whose loop is stuck.
Nothing is cleaned up then: the lock dies with the process, and whoever owns children sees that they die with it.

SIGHUP says that the terminal has gone. A closing terminal may send it twice (the shell and the kernel each do), so it
never forces; whoever started the node with it ignored (`nohup`) keeps a node that ignores it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

FORCED = 130
_FORCING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first signal runs `stop` on the loop, the second is `os._exit`. Main thread only."""
    loop = asyncio.get_running_loop()
    asked = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number in _FORCING:
            os.write(2, b"mag: forced to stop\n")
            os._exit(FORCED)
        if not asked:
            asked = True
            loop.call_soon_threadsafe(stop)

    before = {number: signal.signal(number, handle) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    hung_up_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [*_FORCING] if hung_up_ignored else [*_FORCING, signal.SIGHUP]
