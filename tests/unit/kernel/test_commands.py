"""The order of one command, what is written down about it, deadlines, owners, bounds and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.unit.kernel.command_fakes import (
    ADMIN,
    DESPERATE,
    OPERATOR,
    VIEWER,
    Broken,
    Loose,
    Order,
    Ping,
    Pong,
    Room,
)

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.commands import Call, Command
from magmobo.contracts.errors import AuditUnavailable, DeadlineExceeded, MagError, Unavailable, UnknownAuditAction
from magmobo.contracts.events import SecurityBreakglass, SecurityCapabilityDenied
from magmobo.contracts.operations import OPERATIONS
from magmobo.kernel.commands import passage
from magmobo.kernel.commands.errors import (
    CommandFailed,
    CommandMalformed,
    CommandTaken,
    CommandTimeout,
    CommandUnknown,
    DryRunRefused,
    TooManyCommands,
)
from magmobo.kernel.security.errors import CapabilityDenied, JustificationRefused

INTENT, OK, FAILED = ("test.order", "intent", ""), ("test.order", "outcome", "ok"), ("test.order", "outcome", "failed")


# ---------------------------------------------------------------- asking and answering


async def test_bytes_are_answered_with_bytes_and_a_command_with_its_reply() -> None:
    room = Room()
    assert msgspec.json.decode(await room.bus.run("test:ping", b'{"value": 3}', actor=VIEWER)) == {
        "value": 3,
        "note": "",
        "seen": [],
    }
    assert await room.bus.call(Ping(value=4), actor=VIEWER) == Pong(4)
    assert room.bus.counts() == {("test:ping", "ok"): 2}
    await room.settled()


async def test_the_handler_sees_who_asks_until_when_and_under_which_trace() -> None:
    room = Room()
    await room.clock.advance(100)
    await room.bus.call(Order(), actor=OPERATOR, timeout_s=5, dry_run=True, idempotency_key="k", trace_id="t-1")
    _, call = room.calls[0]
    assert call == Call(actor=OPERATOR, trace_id="t-1", deadline_s=105.0, dry_run=True, idempotency_key="k")


async def test_a_view_asks_as_its_owner_and_answers_in_its_name() -> None:
    room = Room()
    demo = Actor(
        name="component:demo", role=Role.VIEWER, via="component", capabilities=frozenset({"kernel.audit.read"})
    )
    view = room.bus.scoped("demo", demo)
    assert await view.call(Ping(value=2)) == Pong(2)
    assert room.calls[0][1].actor is demo
    with pytest.raises(CapabilityDenied):
        await view.call(Order())

    class Own(Command, frozen=True, kw_only=True):
        name = "demo:own"
        reply = Pong

    view.handle(Own, room.answer)
    assert room.bus.handler_count("demo") == 1
    room.bus.cancel_all("demo")
    assert room.bus.handler_count("demo") == 0
    with pytest.raises(CommandUnknown):
        await view.call(Own())


async def test_a_misspelt_command_is_answered_with_the_nearest_one() -> None:
    room = Room()
    with pytest.raises(CommandUnknown) as unknown:
        await room.bus.run("test:pingg", actor=VIEWER)
    assert str(unknown.value) == 'this node has no command "test:pingg"; did you mean "test:ping"?'
    assert (unknown.value.exit_code, unknown.value.http_status) == (2, 404)
    with pytest.raises(CommandUnknown) as strange:
        await room.bus.run("\x1b]0;owned\x07\n" + "x" * 10_000, actor=VIEWER)
    assert "\x1b" not in str(strange.value)
    assert len(str(strange.value)) < 120
    assert room.bus.counts() == {("", "refused"): 2}, "unknown names must not become labels"


async def test_a_stranger_of_the_same_name_is_not_the_command() -> None:
    room = Room()

    class Impostor(Command, frozen=True, kw_only=True):
        name = "test:ping"
        reply = Pong

    with pytest.raises(CommandUnknown):
        await room.bus.call(Impostor(), actor=ADMIN)


async def test_a_handler_that_answers_something_else_is_a_failure_inside() -> None:
    room = Room()
    room.bus.cancel_all("tests")

    async def lie(command: Ping, call: Call) -> Any:
        return {"value": 1}

    room.bus.handle("tests", Ping, lie)
    with pytest.raises(CommandFailed):
        await room.bus.call(Ping(), actor=VIEWER)
    assert "declared is Pong" in str(room.reports[0][3])


async def test_an_answer_that_json_cannot_say_is_a_failure_inside() -> None:
    room = Room()

    async def act() -> None:
        raise AssertionError("not reached")

    room.act = act  # type: ignore[method-assign]
    room.bus.cancel_all("tests")

    async def surrogate(command: Ping, call: Call) -> Any:
        return Pong(1, "\ud800")

    room.bus.handle("tests", Ping, surrogate)
    with pytest.raises(CommandFailed):
        await room.bus.run("test:ping", actor=VIEWER)


# ---------------------------------------------------------------- registering


async def test_a_command_has_one_handler() -> None:
    room = Room()
    with pytest.raises(CommandTaken) as taken:
        room.bus.handle("other", Ping, room.answer)
    assert taken.value.owner == "tests"
    room.bus.cancel_all("tests")
    registration = room.bus.handle("other", Ping, room.answer)
    registration.cancel()
    registration.cancel()
    room.bus.handle("tests", Ping, room.answer)
    registration.cancel()
    assert room.bus.handler_count("tests") == 1, "a cancelled registration takes off nobody else's"


def command_class(**facts: Any) -> type[Command]:
    namespace = {"__module__": __name__, "__qualname__": "Made", "name": "made:up", "reply": Pong} | facts
    return type(Command)("Made", (Command,), namespace, frozen=True, kw_only=True)


@pytest.mark.parametrize(
    "facts",
    [
        {"name": ""},
        {"name": "noverb"},
        {"name": "a:b:c"},
        {"name": "A:b"},
        {"name": "a:b\n"},
        {"reply": None},
        {"reply": dict},
        {"capability": "no.such"},
    ],
)
def test_a_class_that_is_no_proper_command_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Made"):
        Room().bus.handle("tests", command_class(**facts), Room().answer)


def test_a_command_stays_frozen_and_strict() -> None:
    class Open(Command, frozen=True, kw_only=True, forbid_unknown_fields=False):
        name = "test:open"
        reply = Pong

    with pytest.raises(ValueError, match="forbid unknown fields"):
        Room().bus.handle("tests", Open, Room().answer)


def test_a_command_that_could_never_be_recorded_is_found_when_it_is_registered() -> None:
    with pytest.raises(UnknownAuditAction):
        Room().bus.handle("tests", command_class(audit_action="no.such"), Room().answer)


@pytest.mark.parametrize("command_type", OPERATIONS, ids=lambda command_type: command_type.name)
def test_every_command_of_the_kernel_can_be_registered(command_type: type[Command]) -> None:
    room = Room(audited=False)
    room.bus.handle("kernel", command_type, room.answer)
    assert room.bus.handler_count("kernel") == 1


# ---------------------------------------------------------------- gate and audit


async def test_a_denied_command_is_recorded_told_and_never_acts() -> None:
    room = Room()
    with pytest.raises(CapabilityDenied) as denied:
        await room.bus.run("test:order", actor=VIEWER, trace_id="t-7")
    assert (denied.value.exit_code, denied.value.http_status) == (6, 403)
    assert room.calls == []
    assert room.events == [SecurityCapabilityDenied("kernel.component.restart", "uid:1", "test:order")]
    [record] = room.audit.records
    assert (record["action"], record["actor"], record["command"], record["trace_id"], record["code"]) == (
        "security.denied",
        "uid:1",
        "test:order",
        "t-7",
        "MAG-SEC-001",
    )
    assert room.bus.counts() == {("test:order", "denied"): 1}


async def test_a_denial_stands_when_it_cannot_be_recorded() -> None:
    room = Room()
    room.audit.failure = AuditUnavailable("no room")
    with pytest.raises(CapabilityDenied):
        await room.bus.run("test:order", actor=VIEWER)
    assert [type(report[3]) for report in room.reports] == [AuditUnavailable]


async def test_an_audited_command_is_recorded_before_and_after_under_one_trace() -> None:
    room = Room()

    async def act() -> None:
        assert room.audit.phases() == [INTENT], "the intent is on record before the handler runs"

    room.act = act  # type: ignore[method-assign]
    await room.bus.run("test:order", b'{"value":5}', actor=OPERATOR, dry_run=True)
    intent, outcome = room.audit.records
    assert room.audit.phases() == [INTENT, OK]
    assert intent["params"] == {"value": 5}
    assert (intent["dry_run"], outcome["dry_run"], outcome["acted"]) == (True, True, True)
    assert intent["trace_id"] == outcome["trace_id"] == room.calls[0][1].trace_id != ""
    assert (intent["severity"], intent["actor"]) == (None, "uid:2")


async def test_a_failure_is_recorded_with_its_code() -> None:
    room = Room()

    async def act() -> None:
        raise Broken

    room.act = act  # type: ignore[method-assign]
    with pytest.raises(Broken):
        await room.bus.run("test:order", actor=OPERATOR)
    assert room.audit.phases() == [INTENT, FAILED]
    assert room.audit.records[1]["code"] == "MAG-TEST-001"
    assert room.bus.counts() == {("test:order", "failed"): 1}


@pytest.mark.parametrize("failure", [AuditUnavailable("full"), OSError(28, "full"), ZeroDivisionError()])
async def test_a_privileged_command_that_cannot_be_recorded_does_not_happen(failure: Exception) -> None:
    room = Room()
    room.audit.failure = failure
    with pytest.raises(AuditUnavailable):
        await room.bus.run("test:order", actor=OPERATOR)
    assert room.calls == []
    assert room.bus.counts() == {("test:order", "refused"): 1}


async def test_a_node_without_audit_log_refuses_what_must_be_recorded() -> None:
    room = Room(audited=False)
    with pytest.raises(AuditUnavailable):
        await room.bus.run("test:order", actor=OPERATOR)
    assert room.calls == []
    await room.bus.run("test:ping", actor=VIEWER)


async def test_an_action_that_is_not_privileged_happens_without_its_record() -> None:
    room = Room()
    room.audit.failure = AuditUnavailable("full")
    assert await room.bus.call(Loose(), actor=VIEWER) == Pong(0)
    assert [type(report[3]) for report in room.reports] == [AuditUnavailable]


async def test_an_outcome_that_cannot_be_recorded_is_reported_and_the_answer_given() -> None:
    room = Room()
    room.audit.failure, room.audit.allowed = AuditUnavailable("full"), 1
    assert await room.bus.call(Order(value=1), actor=OPERATOR) == Pong(1)
    assert room.audit.phases() == [INTENT]
    assert [(report[1], type(report[3])) for report in room.reports] == [("test:order", AuditUnavailable)]


async def test_secrets_are_masked_in_the_record_and_arrive_at_the_handler() -> None:
    room = Room()
    await room.bus.run("test:enrol", b'{"user":"ann","password":"hunter2","home":"/h"}', actor=ADMIN)
    intent = room.audit.records[0]
    assert intent["params"]["password"] == "***"
    assert intent["params"]["user"] == "ann"
    assert intent["params"]["home"] == "/h"
    command: Any = room.calls[0][0]
    assert command.password.reveal() == "hunter2"
    assert "hunter2" not in repr(room.audit.records) + repr(room.state.values) + repr(room.reports)


async def test_break_glass_is_recorded_as_critical_with_its_justification() -> None:
    room = Room()
    await room.bus.run("test:order", actor=DESPERATE)
    assert [record["action"] for record in room.audit.records] == ["security.breakglass", "test.order", "test.order"]
    assert {record["severity"] for record in room.audit.records} == {"critical"}
    assert room.audit.records[0]["justification"] == "the building burns"
    assert room.audit.records[0]["capability"] == "kernel.component.restart"
    assert [type(event) for event in room.events] == [SecurityBreakglass]


async def test_break_glass_that_cannot_be_recorded_opens_nothing() -> None:
    room = Room()
    room.audit.failure = AuditUnavailable("full")
    with pytest.raises(AuditUnavailable):
        await room.bus.run("test:order", actor=DESPERATE)
    assert room.calls == []


async def test_a_justification_that_cannot_be_recorded_is_a_recorded_denial() -> None:
    room = Room()
    who = msgspec.structs.replace(DESPERATE, justification="line\nforged")
    with pytest.raises(JustificationRefused):
        await room.bus.run("test:order", actor=who)
    assert [record["action"] for record in room.audit.records] == ["security.denied"]
    assert room.calls == []


async def test_a_gate_that_breaks_lets_nobody_through() -> None:
    room = Room()

    def explode(*asked: Any) -> bool:
        raise ZeroDivisionError

    room.gate.require = explode  # type: ignore[method-assign]
    with pytest.raises(CommandFailed):
        await room.bus.run("test:order", actor=ADMIN)
    assert room.calls == []


async def test_a_dry_run_is_refused_where_it_would_be_the_real_thing() -> None:
    room = Room()
    with pytest.raises(DryRunRefused):
        await room.bus.run("test:ping", actor=VIEWER, dry_run=True)
    assert room.calls == []
    await room.bus.run("test:order", actor=OPERATOR, dry_run=True)
    assert room.calls[0][1].dry_run


# ---------------------------------------------------------------- failures, deadlines, cancellation


async def test_an_unforeseen_failure_shows_its_trace_to_the_caller_and_its_cause_to_the_log() -> None:
    room = Room()

    async def act() -> None:
        raise ValueError("postgres://user:hunter2@db")

    room.act = act  # type: ignore[method-assign]
    with pytest.raises(CommandFailed) as failed:
        await room.bus.run("test:order", actor=OPERATOR, trace_id="t-9")
    assert str(failed.value) == "test:order failed inside the node (trace t-9)"
    [(owner, command, trace_id, error)] = room.reports
    assert (owner, command, trace_id, type(error)) == ("tests", "test:order", "t-9", ValueError)
    assert room.audit.records[1]["code"] == "MAG-CMD-008"
    assert "hunter2" not in repr(room.audit.records)


async def test_a_handler_that_cancels_itself_is_a_failure_and_not_a_cancelled_caller() -> None:
    room = Room()

    async def act() -> None:
        raise asyncio.CancelledError

    room.act = act  # type: ignore[method-assign]
    with pytest.raises(CommandFailed):
        await room.bus.run("test:ping", actor=VIEWER)


@pytest.mark.parametrize("escape", [SystemExit(3), KeyboardInterrupt()])
async def test_a_handler_that_would_end_the_node_is_a_failure_like_any_other(escape: BaseException) -> None:
    room = Room()

    async def act() -> None:
        raise escape

    room.act = act  # type: ignore[method-assign]
    with pytest.raises(CommandFailed):
        await room.bus.run("test:ping", actor=VIEWER)
    assert type(escape).__name__ in str(room.reports[0][3])


async def test_a_command_ends_at_its_deadline_and_the_error_names_the_line() -> None:
    room = Room()
    ended = []

    async def act() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    room.act = act  # type: ignore[method-assign]
    with pytest.raises(CommandTimeout) as late:
        await room.bus.run("test:order", actor=OPERATOR, timeout_s=0.01)
    assert isinstance(late.value, DeadlineExceeded)
    assert (late.value.exit_code, late.value.http_status) == (7, 504)
    assert "test_commands.py" in late.value.where
    assert "in act" in str(late.value)
    assert ended == [True]
    assert room.audit.records[1]["code"] == "MAG-CMD-007"
    assert room.bus.counts() == {("test:order", "timeout"): 1}
    await room.settled()


async def test_the_deadline_holds_for_an_audit_log_that_hangs_too() -> None:
    room = Room()
    room.audit.hang = asyncio.Event()
    task = asyncio.create_task(room.bus.run("test:order", actor=OPERATOR, timeout_s=0.01))
    while not room.bus.settling:
        await asyncio.sleep(0)
    room.audit.hang.set()
    with pytest.raises(CommandTimeout) as late:
        await task
    assert "in record" in late.value.where
    assert room.calls == []
    assert room.audit.records[-1]["acted"] is False


async def test_a_cancelled_caller_cancels_the_handler_and_the_outcome_is_recorded() -> None:
    room = Room()
    entered = asyncio.Event()

    async def act() -> None:
        entered.set()
        await asyncio.Event().wait()

    room.act = act  # type: ignore[method-assign]
    task = asyncio.create_task(room.bus.run("test:order", actor=OPERATOR))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await room.settled()
    assert room.audit.phases() == [INTENT, FAILED]
    assert room.audit.records[1]["code"] == "MAG-CMD-012"
    assert room.bus.counts() == {("test:order", "cancelled"): 1}


async def test_a_handler_that_ignores_its_end_keeps_its_place_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "run_bounded", partial(passage.run_bounded, grace_s=0.01))
    room = Room(max_in_flight=1)
    release = asyncio.Event()

    async def act() -> None:
        for _ in range(2):  # not for ever, so that a broken bus fails this test and does not hang it
            with suppress(asyncio.CancelledError):
                await release.wait()
                return

    room.act = act  # type: ignore[method-assign]
    with pytest.raises(CommandTimeout):
        await room.bus.run("test:ping", actor=VIEWER, timeout_s=0.01)
    assert room.bus.in_flight == 1
    assert "ignores" in str(room.reports[0][3])
    with pytest.raises(TooManyCommands):
        await room.bus.run("test:ping", actor=VIEWER, timeout_s=0.01)
    release.set()
    await room.settled()
    await room.bus.run("test:ping", actor=VIEWER)
    await room.settled()


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 3601, None, "1"])
async def test_a_deadline_that_is_none_is_refused(timeout_s: Any) -> None:
    room = Room()
    with pytest.raises(CommandMalformed, match="timeout_s"):
        await room.bus.run("test:ping", actor=VIEWER, timeout_s=timeout_s)
    assert room.calls == []


@pytest.mark.parametrize("token", ["a b", "a\n", "é", "x" * 129, "\x00", "\ud800"])
async def test_keys_and_traces_are_plain_and_short(token: str) -> None:
    room = Room()
    with pytest.raises(CommandMalformed, match=r"idempotency_key.*trace_id"):
        await room.bus.run("test:ping", actor=VIEWER, idempotency_key=token, trace_id=token)
    assert room.calls == []


# ---------------------------------------------------------------- owners, bounds, the end


async def test_a_handler_whose_owner_stops_is_cancelled_and_its_caller_hears_unavailable() -> None:
    room = Room()
    entered = asyncio.Event()

    async def act() -> None:
        entered.set()
        await asyncio.Event().wait()

    room.act = act  # type: ignore[method-assign]
    task = asyncio.create_task(room.bus.run("test:order", actor=OPERATOR))
    await entered.wait()
    await room.bus.close_owner("tests")
    with pytest.raises(Unavailable):
        await task
    assert room.audit.records[1]["code"] == "MAG-CORE-001"
    with pytest.raises(CommandUnknown):
        await room.bus.run("test:order", actor=OPERATOR)
    await room.settled()


async def test_a_caller_hears_of_the_stop_though_the_handler_ignores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "run_bounded", partial(passage.run_bounded, grace_s=0.01))
    room = Room()
    entered, release = asyncio.Event(), asyncio.Event()

    async def act() -> None:
        entered.set()
        for _ in range(2):  # not for ever, so that a broken bus fails this test and does not hang it
            with suppress(asyncio.CancelledError):
                await release.wait()
                return

    room.act = act  # type: ignore[method-assign]
    task = asyncio.create_task(room.bus.run("test:ping", actor=VIEWER))
    await entered.wait()
    room.bus.cancel_all("tests")
    with pytest.raises(Unavailable):
        await task
    assert room.bus.in_flight == 1
    release.set()
    await room.settled()


async def test_an_owner_that_stops_while_the_intent_is_written_is_not_called_any_more() -> None:
    room = Room()
    room.audit.hang = asyncio.Event()
    task = asyncio.create_task(room.bus.run("test:order", actor=OPERATOR))
    await asyncio.sleep(0.001)
    room.bus.cancel_all("tests")
    room.audit.hang.set()
    with pytest.raises(Unavailable):
        await task
    assert room.calls == []
    assert room.audit.phases() == [INTENT, FAILED]


async def test_a_registration_that_is_cancelled_while_the_intent_is_written_answers_no_more() -> None:
    room = Room()
    room.bus.cancel_all("tests")
    registration = room.bus.handle("tests", Order, room.answer)
    room.audit.hang = asyncio.Event()
    task = asyncio.create_task(room.bus.run("test:order", actor=OPERATOR))
    await asyncio.sleep(0.001)
    registration.cancel()
    room.audit.hang.set()
    with pytest.raises(Unavailable):
        await task
    assert room.calls == []
    assert room.audit.records[-1]["acted"] is False
    await room.settled()


async def test_a_registration_that_is_cancelled_lets_what_runs_end_until_its_owner_stops() -> None:
    room = Room()
    room.bus.cancel_all("tests")
    release = asyncio.Event()

    async def wait(command: Ping, call: Call) -> Pong:
        await release.wait()
        return Pong(1)

    first = room.bus.handle("tests", Ping, wait)
    tasks = [asyncio.create_task(room.bus.call(Ping(), actor=VIEWER)) for _ in range(2)]
    await asyncio.sleep(0.001)
    first.cancel()
    release.set()
    assert await asyncio.gather(*tasks) == [Pong(1), Pong(1)]
    release.clear()
    second = room.bus.handle("tests", Ping, wait)
    task = asyncio.create_task(room.bus.call(Ping(), actor=VIEWER))
    await asyncio.sleep(0.001)
    second.cancel()
    room.bus.cancel_all("tests")
    with pytest.raises(Unavailable):
        await task
    third = room.bus.handle("tests", Ping, wait)
    task = asyncio.create_task(room.bus.call(Ping(), actor=VIEWER))
    await asyncio.sleep(0.001)
    third.revoke()
    with pytest.raises(Unavailable):
        await task
    await room.settled()


async def test_the_number_of_commands_in_flight_is_bounded_and_the_refusal_is_worth_a_retry() -> None:
    room = Room(max_in_flight=3)
    release = asyncio.Event()

    async def act() -> None:
        await release.wait()

    room.act = act  # type: ignore[method-assign]
    tasks = [asyncio.create_task(room.bus.run("test:ping", actor=VIEWER)) for _ in range(5)]
    await asyncio.sleep(0.001)
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [bytes] * 3 + [TooManyCommands] * 2
    assert TooManyCommands(3).retryable
    assert room.bus.counts() == {("test:ping", "ok"): 3, ("test:ping", "refused"): 2}
    await room.settled()


async def test_a_closed_bus_has_ended_everything_and_takes_nothing() -> None:
    room = Room()
    entered = asyncio.Event()

    async def act() -> None:
        entered.set()
        await asyncio.Event().wait()

    room.act = act  # type: ignore[method-assign]
    task = asyncio.create_task(room.bus.run("test:order", actor=OPERATOR, idempotency_key="k"))
    await entered.wait()
    await room.bus.close()
    assert room.audit.phases() == [INTENT, FAILED], "the outcome was written before close returned"
    assert room.bus.handler_count() == 0
    with pytest.raises(Unavailable):
        await task
    with pytest.raises((Unavailable, CommandUnknown)):
        await room.bus.run("test:order", actor=OPERATOR)
    await room.settled()


async def test_a_handler_may_ask_another_and_the_end_of_one_ends_both() -> None:
    room = Room()
    ended: list[str] = []

    class Outer(Command, frozen=True, kw_only=True):
        name = "test:outer"
        reply = Pong

    async def outer(command: Outer, call: Call) -> Pong:
        try:
            reply: Pong = await room.bus.call(Ping(), actor=call.actor)
        finally:
            ended.append("outer")
        return reply

    async def act() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("inner")

    room.act = act  # type: ignore[method-assign]
    room.bus.handle("tests", Outer, outer)
    with pytest.raises(CommandTimeout):
        await room.bus.run("test:outer", actor=VIEWER, timeout_s=0.01)
    assert ended == ["inner", "outer"]
    await room.settled()


# ---------------------------------------------------------------- traces


async def test_a_trace_is_entered_around_the_command_and_made_when_there_is_none() -> None:
    current: ContextVar[str] = ContextVar("current", default="")

    @contextmanager
    def trace(trace_id: str) -> Iterator[None]:
        token = current.set(trace_id)
        yield
        current.reset(token)

    room = Room(trace=trace, current_trace=current.get)
    seen: list[str] = []

    async def act() -> None:
        seen.append(current.get())

    room.act = act  # type: ignore[method-assign]
    await room.bus.run("test:ping", actor=VIEWER, trace_id="given")
    await room.bus.run("test:ping", actor=VIEWER)
    await room.bus.run("test:ping", actor=VIEWER)
    with trace("around"):
        await room.bus.run("test:ping", actor=VIEWER)
    assert seen == [call.trace_id for _, call in room.calls]
    assert (seen[0], seen[3]) == ("given", "around")
    assert len(set(seen)) == 4
    assert current.get() == ""


def test_errors_survive_a_copy() -> None:
    import copy

    errors: list[MagError] = [
        CommandUnknown("a:b", "a:c"),
        CommandMalformed("a:b", ["x: wrong"]),
        CommandTimeout("a:b", 1.0, "here"),
        CommandFailed("a:b", "t"),
    ]
    for error in errors:
        assert str(copy.copy(error)) == str(error)
        assert vars(copy.copy(error)) == vars(error)
