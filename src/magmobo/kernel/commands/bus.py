"""The command bus: everything that is asked of a node takes this one way.

Bytes are decoded here, then `passage` leads the command from the gate to its answer. Invariants: the actor never comes
from the bytes; the number of commands in flight is bounded, and a handler that ignores its cancellation keeps its place
among them; a quarter of the places is for people, so that components cannot keep them from steering the node.
Boundary: one event loop, no I/O of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from magmobo.contracts.audit import Audit
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.commands import C, Command, CommandHandler
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.stores import State
from magmobo.kernel.commands.asked import Asked, Wish
from magmobo.kernel.commands.decode import decode_special
from magmobo.kernel.commands.errors import (
    CommandFailed,
    CommandTimeout,
    CommandUnknown,
    TooManyCommands,
)
from magmobo.kernel.commands.handlers import Handler, HandlerTable
from magmobo.kernel.commands.idempotency import Answers, Outcome
from magmobo.kernel.commands.passage import SETTLE_S, CapabilityGate, FailureReport, Passage

if TYPE_CHECKING:
    from magmobo.contracts.operations import CommandCatalogue

MAX_IN_FLIGHT = 256
_LARGE_BYTES = 131_072  # takes 2 ms to be searched


def _silent(owner: str, command: str, trace_id: str, error: BaseException) -> None:
    """Counts speak for themselves when nobody asked to be told."""


def _no_trace() -> str:
    return ""


class CommandBus:
    """All commands of one node. Components get a view of it with `scoped`.

    Args:
        audit: None: whatever must be recorded is refused.
        state: where answers to idempotency keys are kept; None: such keys are refused.
        trace: entered around each command with its trace id.
        current_trace: the trace a command without an id of its own belongs to; empty: it gets a new one.
        hide: takes secrets out of answers that leave the process, as JSON.
    """

    def __init__(
        self,
        *,
        gate: CapabilityGate,
        audit: Audit | None = None,
        state: State | None = None,
        time_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
        trace: Callable[[str], AbstractContextManager[Any]] = nullcontext,
        current_trace: Callable[[], str] = _no_trace,
        on_failure: FailureReport = _silent,
        hide: Callable[[bytes], bytes] = bytes,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._audit, self._monotonic_s = audit, monotonic_s
        self._trace, self._current_trace = trace, current_trace
        self._hide, self._max_in_flight, self._in_flight = hide, max_in_flight, 0
        self._handlers = HandlerTable()
        answers = Answers(state, time_s, lambda error: on_failure("kernel", "", "", error))
        self._passage = Passage(gate, audit, answers, monotonic_s, on_failure)
        self._counts: dict[tuple[str, str], int] = {}
        self._quiet = asyncio.Event()  # set while no command is under way
        self._quiet.set()
        self._closed = False

    # ------------------------------------------------------------ answering

    def handle(
        self,
        owner: str,
        command_type: type[C],
        handler: CommandHandler[C],
        recorded: Callable[[C], Command] | None = None,
    ) -> Handler:
        """See `contracts.commands.Commands.handle`; `cancel_all(owner)` ends it, or its own `revoke`.

        recorded: gives what the audit log is told of a command, where that is less than all but its `Secret`s.
        Raises: also UnknownAuditAction, so that a command that could never be recorded is found at once.
        """
        if command_type.audit_action and self._audit is not None:
            self._audit.action(command_type.audit_action)
        return self._handlers.add(owner, command_type, handler, recorded)

    def scoped(self, owner: str, actor: Actor) -> ScopedCommands:
        """The bus as `owner` sees it, who asks as `actor`."""
        return ScopedCommands(self, owner, actor)

    def cancel_all(self, owner: str) -> None:
        """Take every handler of `owner` off and cancel those that run; their callers get Unavailable."""
        for handler in self._handlers.of(owner):
            handler.revoke()

    async def close_owner(self, owner: str, *, grace_s: float = 2.0) -> None:
        """`cancel_all`, then return once no handler of `owner` runs any more, or `grace_s` passed."""
        running = {task for handler in self._handlers.of(owner) for task in handler.running}
        self.cancel_all(owner)
        running -= {asyncio.current_task()}
        if running:
            await asyncio.wait(running, timeout=grace_s)

    async def close(self, *, grace_s: float = 2 * SETTLE_S) -> None:
        """Take no command any more, cancel all handlers, and see the last outcomes written, for at most `grace_s`.

        Not from inside a handler: it would wait for itself.
        """
        self._closed = True
        for owner in self._handlers.owners():
            self.cancel_all(owner)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._quiet.wait()
                while settling := self._passage.settling:
                    await asyncio.wait(settling)

    # ------------------------------------------------------------ asking

    async def run(
        self,
        name: str,
        params: bytes = b"{}",
        *,
        actor: Actor,
        timeout_s: float = 30.0,
        dry_run: bool = False,
        idempotency_key: str = "",
        trace_id: str = "",
    ) -> bytes:
        """Send one command that came as bytes; the answer as JSON. See `contracts.planes.Operators.run`."""
        known = ""
        try:
            handler = self._handlers.find(name)
            known = handler.name
            command = handler.decode(params)
        except MagError:
            self._count(known, "refused")
            raise
        wish = Wish(actor, timeout_s, dry_run, idempotency_key, trace_id)
        answer = (await self._ask(handler, command, wish, wants_bytes=True)).encoded
        if len(answer) > _LARGE_BYTES:
            return await asyncio.to_thread(self._hide, answer)
        return self._hide(answer)

    async def call(
        self,
        command: Command,
        *,
        actor: Actor,
        timeout_s: float = 30.0,
        dry_run: bool = False,
        idempotency_key: str = "",
        trace_id: str = "",
    ) -> Any:
        """Send one command from within the process; an instance of its `reply`. See `contracts.commands.Commands.call`.

        The command is taken as its type says it is: fields are checked where bytes enter, not here.
        """
        try:
            handler = self._handlers.find(command.name)
            if type(command) is not handler.command_type:
                raise CommandUnknown(command.name)
        except MagError:
            self._count("", "refused")
            raise
        wish = Wish(actor, timeout_s, dry_run, idempotency_key, trace_id)
        outcome = await self._ask(handler, command, wish, wants_bytes=False)
        if outcome.reply is not None:
            return outcome.reply
        return msgspec.json.decode(outcome.encoded, type=handler.command_type.reply, dec_hook=decode_special)

    def catalogue(self) -> CommandCatalogue:
        """Every command there is now, with the JSON Schemas of what it takes and answers."""
        from magmobo.kernel.commands.schema import catalogue_of  # rarely asked for

        return catalogue_of(handler.command_type for handler in self._handlers)

    # ------------------------------------------------------------ what it counts

    def counts(self) -> dict[tuple[str, str], int]:
        """Commands by name and result: ok, replayed, refused, denied, failed, timeout, cancelled. The name is empty
        for what no handler was found for.
        """
        return dict(self._counts)

    @property
    def in_flight(self) -> int:
        """Commands under way, with handlers that should have ended and have not."""
        return self._in_flight + len(self._passage.stuck)

    @property
    def settling(self) -> int:
        """Outcomes being written, whether or not somebody still waits for them."""
        return len(self._passage.settling)

    def handler_count(self, owner: str | None = None) -> int:
        """Registered handlers, of one owner or of all."""
        return sum(owner in (None, handler.owner) for handler in self._handlers)

    def _count(self, name: str, result: str) -> None:
        self._counts[name, result] = self._counts.get((name, result), 0) + 1

    # ------------------------------------------------------------ the way of one command

    async def _ask(self, handler: Handler, command: Command, wish: Wish, *, wants_bytes: bool) -> Outcome:
        wish = wish if wish.trace_id else msgspec.structs.replace(wish, trace_id=self._current_trace())
        try:
            call = wish.call(handler.name, self._monotonic_s())
        except MagError:
            self._count(handler.name, "refused")
            raise
        asked = Asked(handler, command, call, wish.timeout_s, wants_bytes=wants_bytes)
        try:
            with self._place(call.actor), self._trace(call.trace_id):
                return await self._passage.lead(asked)
        except asyncio.CancelledError:
            asked.result = "cancelled"
            raise
        except CommandTimeout:
            asked.result = "timeout"
            raise
        except MagError:
            raise
        except Exception as error:
            self._passage.report(asked, error)
            raise CommandFailed(asked.name, call.trace_id) from error
        finally:
            self._count(asked.name, asked.result)

    @contextmanager
    def _place(self, actor: Actor) -> Iterator[None]:
        if self._closed:
            raise Unavailable("the command bus")
        limit = self._max_in_flight if actor.via != "component" else max(1, self._max_in_flight * 3 // 4)
        if self.in_flight >= limit:
            raise TooManyCommands(limit)
        self._in_flight += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._quiet.set()


class ScopedCommands:
    """The command bus for one owner; implements `contracts.commands.Commands`."""

    def __init__(self, bus: CommandBus, owner: str, actor: Actor) -> None:
        self._bus, self._owner, self._actor = bus, owner, actor

    def handle(
        self, command_type: type[C], handler: CommandHandler[C], recorded: Callable[[C], Command] | None = None
    ) -> Handler:
        return self._bus.handle(self._owner, command_type, handler, recorded)

    async def call(self, command: Command, *, timeout_s: float = 30.0) -> Any:
        return await self._bus.call(command, actor=self._actor, timeout_s=timeout_s)
