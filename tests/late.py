"""`pytest -p tests.late`: what comes in on a descriptor is now and then read late, as from a slow peer.

For finding tests, and code, that take one order of events for the only one: an answer may come after what its question
began, or before. Nothing is lost, and within one descriptor nothing changes its order, so what fails here may fail
anywhere; only deadlines near the delays fail for no other reason. Boundary: loops of asyncio's own in the process of
the tests. Nodes and workers that are processes of their own go on as always.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import weakref
from collections.abc import Callable, Iterable
from time import sleep  # the function itself: tests put others in its place
from typing import Any

import pytest

Ready = tuple[selectors.SelectorKey, int]
_NOTHING_ELSE_S = 0.0005
"""Between two looks while all that is there is late."""


class Delays:
    """Which descriptors are late, and until when: `share` of what comes in, by up to `longest_s`."""

    def __init__(self, seed: int, share: float, longest_s: float) -> None:
        self._random, self._share, self._longest_s = random.Random(seed), share, longest_s
        self._until_s: dict[int, float] = {}

    def is_late(self, descriptor: int, now_s: float) -> bool:
        """Whether what is there is not to be read yet. What was late is read when its time has come."""
        until_s = self._until_s.get(descriptor)
        if until_s is None:
            if self._random.random() >= self._share:
                return False
            until_s = self._until_s[descriptor] = now_s + self._random.random() * self._longest_s
        if now_s < until_s:
            return True
        del self._until_s[descriptor]
        return False


def delay(monkeypatch: pytest.MonkeyPatch, delays: Callable[[], Delays]) -> None:
    """Give every loop such delays of its own from now on. Calls of other threads into a loop are never late."""
    kind: Any = asyncio.selector_events.BaseSelectorEventLoop
    process, of_loops = kind._process_events, weakref.WeakKeyDictionary[Any, Delays]()

    def process_some(loop: Any, events: Iterable[Ready]) -> None:
        late = of_loops.get(loop) or of_loops.setdefault(loop, delays())
        now_s, own = loop.time(), loop._ssock.fileno() if loop._ssock else -1
        ready = list(events)
        taken = [(key, mask) for key, mask in ready if key.fd == own or not late.is_late(key.fd, now_s)]
        if ready and not taken and not loop._ready:
            sleep(_NOTHING_ELSE_S)
        process(loop, taken)

    monkeypatch.setattr(kind, "_process_events", process_some)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How late, and by which dice."""
    group = parser.getgroup("late input")
    group.addoption("--late-seed", type=int, default=random.randrange(1_000_000), help="of a run to repeat")
    group.addoption("--late-share", type=float, default=0.15, help="of what comes in (0.15)")
    group.addoption("--late-longest-s", type=float, default=0.1, help="by how much at most (0.1)")


def pytest_configure(config: pytest.Config) -> None:
    """From here to the end of the run."""
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    option = config.option
    delay(patch, lambda: Delays(option.late_seed, option.late_share, option.late_longest_s))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Also where `-q` leaves the header out."""
    terminalreporter.write_line(f"input was late with --late-seed={config.option.late_seed}")
