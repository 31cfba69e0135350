"""An extension that guards the channels it sends to: its own messages pass its guard like all others, however few
things it may do at a time, and never keep the guard from answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.integration.extensions.mediation import Mediation, grant, installed, mediation, question, said, until

from magmobo.components.magws.broadcasts import Broadcast, Broadcasts
from magmobo.components.magws.verdicts import Verdicts
from magmobo.extensions.adapters.magws import RealtimeMethods

GRANTS = ("realtime.subscribe_events", "realtime.broadcast")
MESSAGES = 12
CODE = """
@ext.hook("realtime.before_broadcast")
def guard(call):
    return {"data": call.data["data"] + "!"}

@ext.command("say")
async def say(arguments):
    await ext.realtime.broadcast("news", "said", "hear")
    return "sent"
"""


class Realtime:
    """The realtime plane, without clients."""

    app_key = "key"

    def __init__(self, plane: Mediation) -> None:
        self.sent: list[str] = []
        self._broadcasts = Broadcasts(
            plane.board.point("realtime.before_broadcast"),
            lambda message: self.sent.append(message.data),
            lambda _: 10_000,
            structlog.stdlib.get_logger(),
        )

    def publish(self, channels: Sequence[str], event: str, data: str, **_: Any) -> None:
        for channel in channels:
            self._broadcasts.put(Broadcast("app", channel, event, data))

    async def deliver(self, channels: Sequence[str], event: str, data: str, **_: Any) -> None:
        verdicts = Verdicts()
        for channel in channels:
            self._broadcasts.put(Broadcast("app", channel, event, data), verdicts.of(channel))
        assert not await verdicts.wait()

    def authorise(self, socket_id: str, channel: str) -> str:
        raise AssertionError

    def table_channels(self) -> Any:
        raise AssertionError


@pytest.mark.parametrize("concurrency", [1, 2, 3, 64])
async def test_its_own_messages_pass_its_guard(tmp_path: Path, concurrency: int) -> None:
    async with mediation(tmp_path) as plane:
        plane.be_patient()
        realtime = Realtime(plane)
        plane.methods += RealtimeMethods(realtime, denied=plane.gatekeeper.denied).methods()
        extension = installed(
            tmp_path, "one", CODE, grants=GRANTS, limits={"concurrency": concurrency},
            hooks=[{"point": "realtime.before_broadcast"}], commands=[{"name": "say", "summary": "Send."}],
        )  # fmt: skip
        extension.grants = {name: grant(name, scope={"channels": ["news"]}) for name in GRANTS}
        worker = await plane.running(extension)
        answers = await asyncio.gather(
            *(worker.ask(question("command:say", {"arguments": {}})) for _ in range(MESSAGES))
        )
        assert [said(answer) for answer in answers] == ["sent"] * MESSAGES
        await until(lambda: realtime.sent == ["hear!"] * MESSAGES)
