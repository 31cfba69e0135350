"""The way of one command from the gate to its answer, and what is written down about it.

Order: gate, dry run allowed, idempotency, audit of the intent, handler, audit of the outcome, answer. Invariant: when
`lead` returns or raises, no task of that command is left, but for a handler that ignores its cancellation (`stuck`)
and an outcome whose caller was cancelled twice (`settling`). Gate, audit log and state store are Protocols.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from magmobo.contracts.audit import Audit
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.errors import AuditUnavailable, MagError, Unavailable
from magmobo.kernel.commands.asked import Asked
from magmobo.kernel.commands.decode import encode_special
from magmobo.kernel.commands.denials import Denials
from magmobo.kernel.commands.errors import (
    CommandCancelled,
    CommandFailed,
    CommandTimeout,
    DryRunRefused,
    EarlierFailure,
    Failure,
    KeyReused,
)
from magmobo.kernel.commands.idempotency import Answers, Outcome, slot_for
from magmobo.kernel.deadline import Overrun, run_bounded

T = TypeVar("T")
SETTLE_S = 5.0  # for writing the outcome, and again for keeping the answer

FailureReport = Callable[[str, str, str, BaseException], None]
"""Told what a caller is not told: owner of the handler, command, trace id, error. Must not raise."""


class CapabilityGate(Protocol):
    """Who may do what, as the bus asks it."""

    def require(self, actor: Actor, capability: str, context: str) -> bool:
        """Whether it took break-glass. Raises: a MagError for a denial."""
        ...


class _Claim:
    """A key whose command is under way; `ended` gets its outcome, or None when it never began to act."""

    __slots__ = ("ended", "meaning")

    def __init__(self, meaning: bytes) -> None:
        self.meaning = meaning
        self.ended: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()


class Passage:
    """Leads commands through; one for a node.

    `stuck`: tasks of handlers that were cancelled and run on. `settling`: outcomes being written.
    """

    def __init__(
        self,
        gate: CapabilityGate,
        audit: Audit | None,
        answers: Answers,
        monotonic_s: Callable[[], float],
        on_failure: FailureReport,
    ) -> None:
        self._gate, self._audit, self._answers = gate, audit, answers
        self._monotonic_s, self._on_failure = monotonic_s, on_failure
        self._claims: dict[str, _Claim] = {}
        self._denials = Denials(monotonic_s)
        self.stuck: set[asyncio.Task[Any]] = set()
        self.settling: set[asyncio.Task[None]] = set()

    async def lead(self, asked: Asked) -> Outcome:
        """The answer. Raises: every coded error of the way, and whatever else a handler raised."""
        if asked.handler.command_type.capability:
            await self._pass_the_gate(asked)
        if asked.call.dry_run and not asked.handler.command_type.dry_run:
            raise DryRunRefused(asked.name)
        if asked.call.idempotency_key:
            return await self._once(asked)
        return await self._perform(asked, None)

    async def _pass_the_gate(self, asked: Asked) -> None:
        try:
            asked.breakglass = self._gate.require(asked.call.actor, asked.handler.command_type.capability, asked.name)
        except MagError as error:
            asked.result = "denied"
            await self._to_the_end(self._note_denial(asked, error))
            raise
        if asked.breakglass:
            await self._within(asked, lambda: self._record(asked, "security.breakglass", asked.broken_glass()))

    async def _note_denial(self, asked: Asked, error: MagError) -> None:
        """A denial stands, recorded or not."""
        unrecorded = self._denials.admit(asked.call.actor.name, asked.name)
        if unrecorded is not None:
            payload = asked.denial(error, unrecorded)
            await self._attempt(asked, lambda: self._record(asked, "security.denied", payload))

    # ------------------------------------------------------------ idempotency

    async def _once(self, asked: Asked) -> Outcome:
        """Act, unless this key has its answer already or another command is about to give it one."""
        call = asked.call
        slot = asked.slot = slot_for(call.actor, call.idempotency_key, asked.command, dry_run=call.dry_run)
        while (claim := self._claims.get(slot.name)) is not None:
            if claim.meaning != slot.meaning:
                raise KeyReused(slot.key)
            if (outcome := await self._follow(asked, claim)) is not None:
                return self._replayed(asked, outcome)
        claim = self._claims[slot.name] = _Claim(slot.meaning)
        try:
            kept = await self._within(asked, lambda: self._answers.find(slot))
        except BaseException:
            self._release(asked, claim, None)
            raise
        if kept is None:
            return await self._perform(asked, claim)
        self._release(asked, claim, kept)
        return self._replayed(asked, kept)

    async def _follow(self, asked: Asked, claim: _Claim) -> Outcome | None:
        """Wait for the command that holds the key; None when it did not begin to act, so that the next one may."""
        await asyncio.wait({claim.ended}, timeout=self._time_left_s(asked))
        if not claim.ended.done():
            raise CommandTimeout(asked.name, asked.timeout_s, "the same command, under way with the same key")
        return claim.ended.result()

    def _replayed(self, asked: Asked, outcome: Outcome) -> Outcome:
        asked.result = "replayed"
        if outcome.failure is not None:
            raise EarlierFailure(outcome.failure)
        return outcome

    def _release(self, asked: Asked, claim: _Claim, outcome: Outcome | None) -> None:
        if asked.slot is not None:
            del self._claims[asked.slot.name]
        if not claim.ended.done():  # its loop may be going down with it
            claim.ended.set_result(outcome)

    # ------------------------------------------------------------ acting

    async def _perform(self, asked: Asked, claim: _Claim | None) -> Outcome:
        began_s, outcome = self._monotonic_s(), None
        failure: Failure | None = None
        try:
            outcome = await self._within(asked, lambda: self._act(asked))
            asked.result = "ok"
        except asyncio.CancelledError:
            failure = _as_failure(CommandCancelled(asked.name))
            raise
        except MagError as error:
            failure = _as_failure(error)
            raise
        except Exception:
            failure = _as_failure(CommandFailed(asked.name, asked.call.trace_id))
            raise
        finally:
            ended = outcome or Outcome(failure=failure)
            if asked.recorded or claim is not None:
                await self._to_the_end(self._settle(asked, claim, ended, self._monotonic_s() - began_s))
        return outcome

    async def _act(self, asked: Asked) -> Outcome:
        """Everything that happens under the deadline, in a task of its own."""
        if asked.handler.command_type.audit_action:
            await self._record_intent(asked)
        if asked.slot is not None:
            asked.promised = True
            await self._answers.begin(asked.slot, asked.name)
        reply = await self._enter_handler(asked)
        expected = asked.handler.command_type.reply
        if not isinstance(reply, expected):
            raise TypeError(f"{asked.name} answered {type(reply).__name__}, declared is {expected.__name__}")
        if not (asked.wants_bytes or asked.slot is not None):
            return Outcome(reply=reply)
        return Outcome(msgspec.json.encode(reply, enc_hook=encode_special), reply)

    async def _record_intent(self, asked: Asked) -> None:
        action = asked.handler.command_type.audit_action
        asked.recorded = True  # a record that is cancelled half way may be there after all
        try:
            await self._record(asked, action, asked.intent())
        except MagError as error:
            asked.recorded = False
            if self._audit is None or self._audit.action(action).privileged:
                raise
            self.report(asked, error)

    async def _enter_handler(self, asked: Asked) -> Any:
        if not asked.handler.active:  # its owner stopped since it was found
            raise Unavailable(f"the command {asked.name}")
        asked.began, asked.result = True, "failed"
        try:
            return await asked.handler.function(asked.command, asked.call)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                raise RuntimeError("the handler cancelled itself instead of answering") from None
            raise
        except (SystemExit, KeyboardInterrupt) as error:  # would end the node
            raise RuntimeError(f"the handler raised {type(error).__name__} instead of answering") from error

    async def _settle(self, asked: Asked, claim: _Claim | None, outcome: Outcome, duration_s: float) -> None:
        """Write down how it ended, then let those go on who wait for the same answer. Never raises."""
        slot = asked.slot
        try:
            if asked.recorded:
                action, payload = asked.handler.command_type.audit_action, asked.outcome(outcome.failure, duration_s)
                await self._attempt(asked, lambda: self._record(asked, action, payload))
            if slot is not None and asked.began:
                await self._attempt(asked, lambda: self._answers.end(slot, asked.name, outcome))
            elif slot is not None and asked.promised:
                await self._attempt(asked, lambda: self._answers.forget(slot))
        finally:
            if claim is not None:
                self._release(asked, claim, outcome if asked.began else None)

    # ------------------------------------------------------------ steps

    async def _within(self, asked: Asked, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run one step in a task of its own until the deadline.

        Raises: CommandTimeout; Unavailable when the owner of the handler stops; what the step raises.
        """
        tasks: list[asyncio.Task[Any]] = []

        def began(task: asyncio.Task[Any]) -> None:
            tasks.append(task)
            asked.handler.began(task, asked.interruption)

        try:
            return await run_bounded(
                step(),
                timeout_s=self._time_left_s(asked),
                name=f"command {asked.name}",
                interruption=asked.interruption,
                began=began,
            )
        except Overrun as error:
            raise CommandTimeout(asked.name, asked.timeout_s, error.where) from None
        finally:
            for task in (task for task in tasks if not task.done()):
                self.stuck.add(task)
                task.add_done_callback(self.stuck.discard)
                self.report(asked, RuntimeError("the handler ignores that it was cancelled, and runs on"))

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, which goes on when the caller is cancelled; it must not raise, and bounds itself."""
        task = asyncio.create_task(work)
        self.settling.add(task)
        task.add_done_callback(self.settling.discard)
        await asyncio.shield(task)

    async def _attempt(self, asked: Asked, step: Callable[[], Awaitable[Any]]) -> None:
        """Try `step` for `SETTLE_S`; a failure is for the log, because what it should have followed has happened."""
        try:
            async with asyncio.timeout(SETTLE_S):
                await step()
        except Exception as error:
            self.report(asked, error)

    async def _record(self, asked: Asked, action: str, payload: Any) -> None:
        """Raises: AuditUnavailable, UnknownAuditAction."""
        if self._audit is None:
            raise AuditUnavailable("this node keeps no audit log")
        call = asked.call
        try:
            await self._audit.record(
                action, actor=call.actor, payload=payload, trace_id=call.trace_id, severity=asked.severity
            )
        except MagError:
            raise
        except Exception as error:
            raise AuditUnavailable(f"it failed with {type(error).__name__}") from error

    def _time_left_s(self, asked: Asked) -> float:
        return max(0.0, asked.call.deadline_s - self._monotonic_s())

    def report(self, asked: Asked, error: BaseException) -> None:
        """Tell the log what the caller is not told."""
        self._on_failure(asked.handler.owner, asked.name, asked.call.trace_id, error)


def _as_failure(error: MagError) -> Failure:
    from magmobo.kernel.redact import redact_text  # with the first failure

    return Failure(error.code, redact_text(str(error)), error.next_step(), error.exit_code, error.http_status)
