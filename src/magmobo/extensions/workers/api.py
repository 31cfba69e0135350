"""Serves the questions of one life of a worker: on whose behalf, whether it may, and the answer.

The socket is the identity: no frame says who asks. What a worker does say, in which of its calls it asks, decides only
which path of hooks counts, and never makes that path shorter. A refusal costs no task. Invariant: at most `WINDOW`
questions at once, each answered once; all end with the link.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from msgspec import Raw

from magmobo.contracts.errors import MagError
from magmobo.extensions.installed import Caller, Installed
from magmobo.extensions.workers.asked import CURRENT, Asked
from magmobo.extensions.workers.link import Link
from magx import wire
from magx.wire import ProtocolFault

BACKGROUND_S = 30.0
"""How long the node works for a question that belongs to no call."""
_TEXT_CHARS = 2000


class Dispatcher(Protocol):
    """Decides about questions of extensions and answers them: `gate.dispatch.ApiDispatcher`."""

    def admit(self, caller: Caller, method: str, args: Raw) -> Any:
        """What `run` takes. Raises: MagError."""
        ...

    async def run(self, admitted: Any) -> Raw:
        """Raises: MagError."""
        ...


class ApiService:
    """Questions of one link."""

    def __init__(self, installed: Installed, link: Link, dispatcher: Dispatcher) -> None:
        self._installed, self._link, self._dispatcher = installed, link, dispatcher
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, asyncio.Task[None]] = {}
        self.asked = 0

    def serve(self, api: wire.Api) -> None:
        """One question. Raises: ProtocolFault for more than the window holds, or a number that is in use."""
        if len(self._running) >= wire.WINDOW:
            raise ProtocolFault(f"more than {wire.WINDOW} questions at once")
        if api.id in self._running or not 0 < api.id < 2**63:
            raise ProtocolFault("a question with a number that it may not have")
        self.asked += 1
        behalf = self._behalf(api.call_id)
        deadline_s = self._loop.time() + BACKGROUND_S
        if behalf is not None:
            deadline_s = min(deadline_s, behalf.deadline_s)
        caller = Caller(self._installed, () if behalf is None else behalf.chain, deadline_s)
        try:
            admitted = self._dispatcher.admit(caller, api.method, api.args)
        except MagError as error:
            self._refuse(api.id, error)
            return
        self._running[api.id] = self._loop.create_task(self._answer(api.id, admitted, behalf))

    def close(self) -> None:
        """Nobody hears the answers any more."""
        for task in self._running.values():
            task.cancel()

    @property
    def in_flight(self) -> int:
        """How many are under way."""
        return len(self._running)

    def _behalf(self, call_id: int) -> Asked | None:
        """The call on whose behalf a question is: of those that began where the named one did, the deepest; when none
        is named, the deepest of all.
        """
        pending = self._link.pending
        named = pending.get(call_id)
        kin = pending.values() if named is None else [one for one in pending.values() if one.root is named.root]
        return max(kin, key=lambda one: len(one.chain), default=None)

    async def _answer(self, number: int, admitted: Any, behalf: Asked | None) -> None:
        CURRENT.set(behalf)
        try:
            result = await self._dispatcher.run(admitted)
            self._link.send(wire.Reply(number, result))
        except MagError as error:
            self._refuse(number, error)
        finally:
            del self._running[number]

    def _refuse(self, number: int, error: MagError) -> None:
        retry_s = float(getattr(error, "retry_s", 0.0))
        self._link.send(wire.Refuse(number, error.code, str(error)[:_TEXT_CHARS], retry_s))
