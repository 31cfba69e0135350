"""Signals of a node: SIGTERM and SIGINT ask it to drain, a second one ends it at once; SIGHUP reloads its settings.

They are plain Python signal handlers and not the loop's, so that the second one also ends a node whose loop is stuck.
Nothing is cleaned up then: the lock dies with the process, and whoever owns children sees that they die with it.

SIGHUP also says that the terminal has gone. A node that was started in one and has none any more drains, as before;
a closing terminal may send it twice (the shell and the kernel each do), so it never forces. Whoever started the node
with it ignored (`nohup`) keeps a node that outlives its terminal: there it reloads in any case.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

FORCED = 130
_TERMINAL = "/dev/tty"  # the one that controls this process; it cannot be opened when there is none
_FORCING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopping_on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first signal that means so runs `stop` on the loop, the second is `os._exit`; until then
    SIGHUP runs `reload` on the loop, once for several that come before it ran. Main thread only.
    """
    loop = asyncio.get_running_loop()
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    may_hang_up = _has_terminal() and not is_ignored
    is_stopping = is_reload_due = False

    def run_reload() -> None:
        nonlocal is_reload_due
        is_reload_due = False
        if not is_stopping:
            reload()

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping, is_reload_due
        if is_stopping:
            if number in _FORCING:
                os.write(2, b"mag: forced to stop\n")
                os._exit(FORCED)
        elif number in _FORCING or (may_hang_up and not _has_terminal()):
            is_stopping = True
            loop.call_soon_threadsafe(stop)
        elif not is_reload_due:
            is_reload_due = True
            loop.call_soon_threadsafe(run_reload)

    before = {number: signal.signal(number, handle) for number in (*_FORCING, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True
