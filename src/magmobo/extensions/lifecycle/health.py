"""How an extension says it is, and when that is too bad or too often for it to go on.

Boundary: what a worker answers is hostile; it is cut, typed, and becomes one of three words. Three answers in a row
that are not well, or `CRASHES` ends of its process within `CRASH_WINDOW_S`, are enough. Source: CONTRACTS section 6.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from magmobo.contracts.errors import DeadlineExceeded, MagError
from magmobo.contracts.health import HealthStatus
from magmobo.extensions.installed import Question
from magmobo.extensions.lifecycle.errors import NotWell
from magmobo.extensions.lifecycle.ports import Worker

HANDLER = "health"
ASK_TIMEOUT_S = 5.0
STRIKES = 3
CRASHES = 5
CRASH_WINDOW_S = 300.0
DETAIL_CHARS = 300
_EMPTY = Raw(msgspec.msgpack.encode({}))


class Said(Struct, frozen=True):
    """How it is, in its own words."""

    status: HealthStatus
    detail: str = ""


class _Answer(Struct, frozen=True):
    status: Literal["healthy", "degraded", "unhealthy"]
    detail: str = ""


@dataclass(slots=True)
class HealthBook:
    """How one worker has been since it is in place. `strikes` counts answers in a row that were not well."""

    said: Said = field(default_factory=lambda: Said(HealthStatus.HEALTHY))
    strikes: int = 0
    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=CRASHES))

    def note(self, said: Said) -> Said | None:
        """Take an answer down; the former one when it had another status."""
        before, self.said = self.said, said
        self.strikes = self.strikes + 1 if said.status is HealthStatus.UNHEALTHY else 0
        return before if before.status is not said.status else None

    def note_crash(self, now_s: float) -> int:
        """Take an end of its process down; how many there were within the window."""
        self.crashes.append(now_s)
        return sum(1 for at_s in self.crashes if at_s > now_s - CRASH_WINDOW_S)


async def ask_health(worker: Worker, *, must_be_well: bool = False) -> Said:
    """How it says it is; unhealthy when it does not answer in time or not in the agreed form. One that has nothing to
    say about it is well.

    Raises: NotWell for what is unhealthy, when `must_be_well`.
    """
    said = Said(HealthStatus.HEALTHY)
    if HANDLER in worker.handlers:
        try:
            said = read_answer(await worker.ask(Question(HANDLER, _EMPTY, ASK_TIMEOUT_S)))
        except (MagError, TimeoutError) as error:
            late = isinstance(error, TimeoutError | DeadlineExceeded)
            text = f"no answer within {ASK_TIMEOUT_S:g} s" if late else " ".join(str(error).split())
            said = Said(HealthStatus.UNHEALTHY, text[:DETAIL_CHARS])
    if must_be_well and said.status is HealthStatus.UNHEALTHY:
        raise NotWell(worker.installed.id, said.detail)
    return said


def read_answer(answer: Raw) -> Said:
    """`{status, detail}`, or `{check: whether it is well}`; anything else is unhealthy."""
    try:
        found = msgspec.msgpack.decode(answer, type=dict[str, bool | str])
        if "status" in found:
            known = msgspec.convert(found, _Answer)
            return Said(HealthStatus(known.status), _plain(known.detail))
        checks = msgspec.convert(found, dict[str, bool])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Said(HealthStatus.UNHEALTHY, "its health is not told in a form that we read")
    bad = sorted(name for name, is_well in checks.items() if not is_well)
    return Said(HealthStatus.UNHEALTHY, _plain(", ".join(bad[:10]))) if bad else Said(HealthStatus.HEALTHY)


def _plain(text: str) -> str:
    """One line without control characters."""
    return "".join(char if char.isprintable() else " " for char in text[:DETAIL_CHARS])
