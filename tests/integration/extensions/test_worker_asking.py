"""A worker is asked: what it answers, what it raises, what it does not answer in time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.extensions.mediation import installed, mediation, question, said

from magmobo.extensions.workers.errors import CallTimedOut, HandlerFailed

COMMANDS = """
@ext.command("echo")
async def echo(arguments):
    return {"got": arguments}

@ext.command("raise")
async def fails(arguments):
    raise ValueError("so not")

@ext.command("slow")
async def slow(arguments):
    await asyncio.sleep(60)
"""


async def test_a_command_answers(tmp_path: Path) -> None:
    async with mediation(tmp_path) as plane:
        names = [{"name": name} for name in ("echo", "raise", "slow")]
        worker = await plane.running(installed(tmp_path, "one", COMMANDS, commands=names))
        assert said(await worker.ask(question("command:echo", {"arguments": ["a", 1]}))) == {"got": ["a", 1]}
        with pytest.raises(HandlerFailed, match="command:raise of one raised ValueError: so not"):
            await worker.ask(question("command:raise", {"arguments": []}))
        with pytest.raises(CallTimedOut):
            await worker.ask(question("command:slow", {"arguments": []}, timeout_s=0.05))
        assert said(await worker.ask(question("command:echo", {"arguments": []}))) == {"got": []}
        assert not plane.escapes
        assert not plane.crashes
