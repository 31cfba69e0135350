"""What signals do to a node, asked of the handlers themselves; of real terminals in the integration tests."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from magmobo.node import signals
from magmobo.node.signals import FORCED, stopping_on_signals


class Terminal:
    """Whether this process has one, as `signals` sees it."""

    is_there = True

    def __call__(self) -> bool:
        return self.is_there


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setattr(signals, "_has_terminal", made)
    return made


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


class Heard:
    """What was run, in order."""

    def __init__(self) -> None:
        self.words = asyncio.Queue[str]()

    def stop(self) -> None:
        self.words.put_nowait("stop")

    def reload(self) -> None:
        self.words.put_nowait("reload")

    async def rest(self) -> list[str]:
        """Everything that was run by now."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [self.words.get_nowait() for _ in range(self.words.qsize())]


async def test_a_terminal_hangs_up_twice_and_forces_nothing(terminal: Terminal, exits: list[int]) -> None:
    before, heard = signal.getsignal(signal.SIGHUP), Heard()
    with stopping_on_signals(heard.stop, heard.reload):
        terminal.is_there = False
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert (await heard.rest(), exits) == (["stop"], [])
        signal.raise_signal(signal.SIGTERM)
        assert exits == [FORCED]
    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.parametrize("has_terminal", [True, False])
async def test_without_a_hang_up_it_reloads(terminal: Terminal, has_terminal: bool) -> None:
    terminal.is_there, heard = has_terminal, Heard()
    with stopping_on_signals(heard.stop, heard.reload):
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
            assert await heard.rest() == ["reload"]


async def test_under_nohup_it_reloads_although_the_terminal_went(terminal: Terminal) -> None:
    before, heard = signal.signal(signal.SIGHUP, signal.SIG_IGN), Heard()
    try:
        with stopping_on_signals(heard.stop, heard.reload):
            terminal.is_there = False
            signal.raise_signal(signal.SIGHUP)
            assert await heard.rest() == ["reload"]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_burst_is_one_reload(terminal: Terminal) -> None:
    heard = Heard()
    with stopping_on_signals(heard.stop, heard.reload):
        for _ in range(5):
            signal.raise_signal(signal.SIGHUP)
        assert await heard.rest() == ["reload"]


async def test_a_node_that_stops_reloads_no_more(terminal: Terminal, exits: list[int]) -> None:
    heard = Heard()
    with stopping_on_signals(heard.stop, heard.reload):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert (await heard.rest(), exits) == (["stop"], [])


def test_a_process_without_a_terminal_knows_it() -> None:
    """The integration tests ask the same of one that has a terminal, and of one whose terminal went."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os._exit(signals._has_terminal())
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
