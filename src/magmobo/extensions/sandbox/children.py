"""Signals to a child that an asyncio loop waits for.

Boundary: sends, and reaps nothing. Source: CPython issue 127049; `asyncio.subprocess.Process.send_signal` asks first
whether the child has ended, which reaps it. Where the loop waits in a thread, that thread then finds nobody, and the
child seems to have ended with status 255, whatever ended it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol


class Child(Protocol):
    """What is asked of one: `returncode` is None until whoever waits for it knows how it ended."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...


def send_signal(child: Child, number: int) -> None:
    """Send it, and leave how the child ends to whoever waits; one that has ended is fine."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)
