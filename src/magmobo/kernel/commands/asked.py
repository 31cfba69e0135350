"""One command on its way through the bus: what was asked, how far it came, how it ended.

Boundary: plain values and what the audit log is told of them.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from magmobo.contracts.audit import Severity
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.commands import Call, Command
from magmobo.contracts.errors import MagError
from magmobo.kernel.commands.decode import masked
from magmobo.kernel.commands.errors import CommandMalformed, Failure
from magmobo.kernel.commands.handlers import Handler
from magmobo.kernel.commands.idempotency import Slot

MAX_TIMEOUT_S = 3_600.0
_PRINTABLE = r"[!-~]{1,128}"


class Wish(Struct, frozen=True):
    """How a command is wanted; what does not come from the command itself. `trace_id` empty: give it one."""

    actor: Actor
    timeout_s: float
    dry_run: bool
    idempotency_key: str
    trace_id: str

    def problems(self) -> list[str]:
        """What is wrong with it; all of it may have come from outside."""
        found = []
        if not (isinstance(self.timeout_s, (int, float)) and 0 < self.timeout_s <= MAX_TIMEOUT_S):  # NaN fails both
            found.append(f"timeout_s: expected a number above 0 and at most {MAX_TIMEOUT_S:g}")
        for name, token in (("idempotency_key", self.idempotency_key), ("trace_id", self.trace_id)):
            if token and not re.fullmatch(_PRINTABLE, token):
                found.append(f"{name}: expected at most 128 printable ASCII characters without blanks")
        return found

    def call(self, name: str, now_s: float) -> Call:
        """What the handler sees of it. Raises: CommandMalformed."""
        if found := self.problems():
            raise CommandMalformed(name, found)
        return Call(
            actor=self.actor,
            trace_id=self.trace_id or os.urandom(16).hex(),
            deadline_s=now_s + self.timeout_s,
            dry_run=self.dry_run,
            idempotency_key=self.idempotency_key,
        )


class Asked:
    """The progress of one command.

    `result` is what it counts as if it ended now. `recorded`: the audit log may hold its intent. `promised`: the state
    may hold its key as begun. `began`: the handler was entered. `interruption`: ends it early with an error.
    """

    __slots__ = (
        "began", "breakglass", "call", "command", "handler", "interruption", "promised", "recorded", "result", "slot",
        "timeout_s", "wants_bytes",
    )  # fmt: skip

    def __init__(self, handler: Handler, command: Command, call: Call, timeout_s: float, *, wants_bytes: bool) -> None:
        self.handler, self.command, self.call = handler, command, call
        self.timeout_s, self.wants_bytes = timeout_s, wants_bytes
        self.breakglass = self.recorded = self.promised = self.began = False
        self.result = "refused"
        self.slot: Slot | None = None
        self.interruption: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    @property
    def name(self) -> str:
        """The command's name."""
        return self.handler.name

    @property
    def severity(self) -> Severity | None:
        """Of its audit records; None: what the catalogue says."""
        return "critical" if self.breakglass else None

    # ------------------------------------------------------------ what the audit log is told

    def denial(self, error: MagError, unrecorded: int) -> Mapping[str, Any]:
        """`unrecorded`: how many denials like this one came before it and were not recorded."""
        said = {"command": self.name, "capability": self.handler.command_type.capability, "code": error.code}
        return said | {"unrecorded": unrecorded} if unrecorded else said

    def broken_glass(self) -> Mapping[str, Any]:
        return {**self.intent(), "capability": self.handler.command_type.capability}

    def intent(self) -> Mapping[str, Any]:
        """Before it acts."""
        payload: dict[str, Any] = {
            "command": self.name,
            "phase": "intent",
            "params": masked(self.handler.recorded(self.command)),
            "dry_run": self.call.dry_run,
        }
        if self.breakglass:
            payload["justification"] = self.call.actor.justification.strip()
        return payload

    def outcome(self, failure: Failure | None, duration_s: float) -> Mapping[str, Any]:
        """After it acted. `acted`: whether the handler was entered at all."""
        return {
            "command": self.name,
            "phase": "outcome",
            "result": "ok" if failure is None else "failed",
            "code": "" if failure is None else failure.code,
            "acted": self.began,
            "duration_s": round(duration_s, 6),
            "dry_run": self.call.dry_run,
        }
