"""`python command_victim.py FOLDER KEYS`: a node that does one thing for each key, and says what it answered.

The act is a line in FOLDER/acts, on disk when the handler returns. Each key is sent; its answer, or the code it was
refused with, goes to standard output as `key answer`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from msgspec import Struct

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.commands import Call, Command
from magmobo.contracts.errors import MagError
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.commands.bus import CommandBus
from magmobo.kernel.places import audit_dir, state_file
from magmobo.kernel.redact import redact
from magmobo.kernel.security.gate import Gate
from magmobo.kernel.state.manager import StateManager

OPERATOR = Actor(name="uid:1", role=Role.OPERATOR, via="control")


class Done(Struct, frozen=True):
    what: str


class Act(Command, frozen=True, kw_only=True):
    """Write a line."""

    name = "crash:act"
    capability = "kernel.component.restart"
    audit_action = "component.restart"
    reply = Done
    what: str


async def main(folder: Path, keys: list[str]) -> None:
    state_file(folder).parent.mkdir(parents=True, exist_ok=True)
    state = StateManager(state_file(folder))
    await state.open()
    audit = AuditLog(audit_dir(folder), state.scope("audit"), mask=redact)
    await audit.open()
    bus = CommandBus(gate=Gate(lambda event: None), audit=audit, state=state.scope("commands"))
    acts = os.open(folder / "acts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def act(command: Act, call: Call) -> Done:
        os.write(acts, f"{command.what}\n".encode())
        os.fsync(acts)
        await asyncio.sleep(0)
        return Done(command.what)

    async def send(key: str) -> None:
        try:
            answer = (await bus.call(Act(what=key), actor=OPERATOR, idempotency_key=key)).what
        except MagError as error:
            answer = error.code
        os.write(1, f"{key} {answer}\n".encode())

    bus.handle("crash", Act, act)
    os.write(1, b"ready\n")
    for start in range(0, len(keys), 4):
        await asyncio.gather(*(send(key) for key in keys[start : start + 4]))
    await bus.close()
    await audit.close()
    await state.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
