"""What signals do to a node, asked of the handlers themselves."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from magmobo.node.signals import FORCED, stopping_on_signals


async def test_a_terminal_hangs_up_twice_and_forces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    before = signal.getsignal(signal.SIGHUP)
    asked = asyncio.Queue[str]()
    with stopping_on_signals(lambda: asked.put_nowait("stop")):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert await asked.get() == "stop"
        assert (asked.empty(), exits) == (True, [])
        signal.raise_signal(signal.SIGTERM)
        assert exits == [FORCED]
    assert signal.getsignal(signal.SIGHUP) is before
