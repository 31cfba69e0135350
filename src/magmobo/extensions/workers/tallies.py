"""How calls of a worker's handlers ended, and how long they took, by handler. Whoever asks is answered all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.gate.ledger import Tally
from magmobo.extensions.workers.errors import CallTimedOut, HandlerDenied, HandlerFailed, WorkerEnded

T = TypeVar("T")
_RESULTS = {
    HandlerDenied: "denied",
    HandlerFailed: "failed",
    CallTimedOut: "timeout",
    WorkerEnded: "ended",
    asyncio.CancelledError: "cancelled",
}


class Tallies(dict[str, Tally]):
    """Of one extension, by handler; each is there once it is looked for."""

    def __init__(self, gatekeeper: Gatekeeper, extension_id: str) -> None:
        super().__init__()
        self._gatekeeper, self._extension_id = gatekeeper, extension_id

    def __missing__(self, handler: str) -> Tally:
        kind, _, name = handler.partition(":")
        made = self[handler] = self._gatekeeper.tally(self._extension_id, kind, name)
        return made


def result_of(error: BaseException) -> str:
    """How a call ended that raised."""
    return _RESULTS.get(type(error), "unavailable")


async def counted(tally: Tally, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises; how it ended is noted."""
    began_s = time.perf_counter()
    try:
        answer = await work
    except BaseException as error:
        tally.note(result_of(error), time.perf_counter() - began_s)
        raise
    tally.note("ok", time.perf_counter() - began_s)
    return answer
