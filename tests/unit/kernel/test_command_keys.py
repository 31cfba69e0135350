"""Idempotency keys: at most once, over failures, restarts, crashes, duplicates at the same time, and bounds."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.kernel.command_fakes import (
    ADMIN,
    DESPERATE,
    OPERATOR,
    VIEWER,
    Broken,
    Enrol,
    MemoryState,
    Order,
    Ping,
    Pong,
    Room,
)

from magmobo.contracts.commands import Call, Command
from magmobo.contracts.errors import AuditUnavailable, MagError, StateUnavailable
from magmobo.contracts.secret import Secret
from magmobo.kernel.commands import bus, idempotency
from magmobo.kernel.commands.errors import CommandTimeout, DryRunRefused, EarlierFailure, KeyReused, OutcomeUnknown
from magmobo.kernel.security.errors import CapabilityDenied

DAY_S = 24 * 3600.0


async def test_a_key_that_comes_again_gets_the_answer_it_got_and_nothing_is_done() -> None:
    room = Room()
    first = await room.bus.run("test:order", b'{"value": 1}', actor=OPERATOR, idempotency_key="k")
    again = await room.bus.run("test:order", b'{"value":1}', actor=OPERATOR, idempotency_key="k")
    assert first == again
    assert await room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k") == Pong(1)
    assert len(room.calls) == 1
    assert len(room.audit.records) == 2, "an answer given again is no act"
    assert room.bus.counts() == {("test:order", "ok"): 1, ("test:order", "replayed"): 2}
    await room.settled()


async def test_the_answer_survives_a_restart_of_the_node() -> None:
    room = Room()
    first = await room.bus.run("test:order", b'{"value": 1}', actor=OPERATOR, idempotency_key="k")
    later = Room(MemoryState(room.state.values))
    assert await later.bus.run("test:order", b'{"value": 1}', actor=OPERATOR, idempotency_key="k") == first
    assert later.calls == []
    assert await later.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k") == Pong(1)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (Order(value=2), {}),
        (Ping(value=1), {}),
        (Order(value=1), {"dry_run": True}),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_key_that_means_something_else_is_refused(
    command: Command, options: dict[str, Any], restarted: bool
) -> None:
    room = Room()
    await room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k")
    if restarted:
        room = Room(MemoryState(room.state.values))
    with pytest.raises(KeyReused):
        await room.bus.call(command, actor=OPERATOR, idempotency_key="k", **options)
    assert len(room.calls) == (0 if restarted else 1)


async def test_a_key_that_is_under_way_with_something_else_is_refused() -> None:
    room = Room()
    release = asyncio.Event()

    async def act() -> None:
        await release.wait()

    room.act = act  # type: ignore[method-assign]
    task = asyncio.create_task(room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k"))
    await asyncio.sleep(0.001)
    with pytest.raises(KeyReused):
        await room.bus.call(Order(value=2), actor=OPERATOR, idempotency_key="k")
    release.set()
    assert await task == Pong(1)


async def test_a_secret_is_part_of_what_a_key_stands_for_and_is_not_kept() -> None:
    room = Room()
    ann = Enrol(user="ann", password=Secret("hunter2"))
    await room.bus.call(ann, actor=ADMIN, idempotency_key="k")
    await room.bus.call(Enrol(user="ann", password=Secret("hunter2")), actor=ADMIN, idempotency_key="k")
    with pytest.raises(KeyReused):
        await room.bus.call(Enrol(user="ann", password=Secret("hunter3")), actor=ADMIN, idempotency_key="k")
    await room.bus.call(ann, actor=ADMIN, idempotency_key="other")
    kept = [value["fingerprint"] for key, value in room.state.values.items() if key.startswith("key:")]
    assert len(kept) == len(set(kept)) == 2, "equal parameters must not look equal"
    assert "hunter" not in repr(room.state.values)


async def test_a_key_belongs_to_the_actor_who_sent_it() -> None:
    room = Room()
    await room.bus.call(Ping(value=1), actor=OPERATOR, idempotency_key="k")
    assert await room.bus.call(Ping(value=2), actor=VIEWER, idempotency_key="k") == Pong(2)
    twin = msgspec.structs.replace(OPERATOR, via="console")
    assert await room.bus.call(Ping(value=3), actor=twin, idempotency_key="k") == Pong(3)
    assert len(room.calls) == 3


async def test_the_gate_comes_before_the_kept_answer() -> None:
    room = Room()
    await room.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
    demoted = msgspec.structs.replace(OPERATOR, role="viewer")
    with pytest.raises(CapabilityDenied):
        await room.bus.call(Order(), actor=demoted, idempotency_key="k")


async def test_break_glass_is_on_record_for_an_answer_given_again_too() -> None:
    room = Room()
    for _ in range(2):
        await room.bus.call(Order(), actor=DESPERATE, idempotency_key="k")
    assert len(room.calls) == 1
    assert [record["action"] for record in room.audit.records].count("security.breakglass") == 2


# ---------------------------------------------------------------- failures


async def test_a_failure_after_the_handler_began_is_the_answer_of_the_key() -> None:
    room = Room()

    async def act() -> None:
        raise Broken

    room.act = act  # type: ignore[method-assign]
    with pytest.raises(Broken):
        await room.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
    for node in (room, Room(MemoryState(room.state.values))):
        with pytest.raises(EarlierFailure) as again:
            await node.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
        assert (again.value.code, again.value.exit_code, again.value.http_status) == ("MAG-TEST-001", 9, 418)
        assert str(again.value) == "it is broken"
        assert again.value.next_step() == "Mend it. To try again, use a new idempotency key."
        assert not again.value.retryable
    assert len(room.calls) == 1


async def test_what_failed_before_the_handler_began_may_be_tried_again_with_the_same_key() -> None:
    room = Room()
    room.audit.failure = AuditUnavailable("full")
    with pytest.raises(AuditUnavailable):
        await room.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
    room.audit.failure = None
    with pytest.raises(DryRunRefused):
        await room.bus.call(Ping(), actor=OPERATOR, dry_run=True, idempotency_key="k")
    with pytest.raises(CapabilityDenied):
        await room.bus.call(Order(), actor=VIEWER, idempotency_key="k")
    assert room.state.values == {}
    assert await room.bus.call(Order(value=3), actor=OPERATOR, idempotency_key="k") == Pong(3)


@pytest.mark.parametrize("broken", ["entries", "put"])
async def test_a_promise_that_cannot_be_written_down_is_not_made(broken: str) -> None:
    room = Room()
    room.state.fails = {broken}
    with pytest.raises(StateUnavailable):
        await room.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
    assert room.calls == []
    room.state.fails = set()
    assert await room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k") == Pong(1)
    await room.settled()


async def test_a_node_without_state_refuses_keys_and_nothing_else() -> None:
    room = Room()
    stateless = bus.CommandBus(gate=room.gate)
    stateless.handle("tests", Ping, room.answer)
    with pytest.raises(StateUnavailable):
        await stateless.call(Ping(), actor=VIEWER, idempotency_key="k")
    assert await stateless.call(Ping(value=1), actor=VIEWER) == Pong(1)


async def test_an_answer_that_cannot_be_kept_is_given_once_and_never_done_twice() -> None:
    room = Room()
    room.state.fails = {"put_all"}
    assert await room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k") == Pong(1)
    assert [type(report[3]) for report in room.reports] == [StateUnavailable]
    room.state.fails = set()
    with pytest.raises(OutcomeUnknown):
        await room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k")
    assert len(room.calls) == 1


async def test_an_answer_too_large_to_keep_is_given_once_and_never_done_twice() -> None:
    room = Room()
    room.bus.cancel_all("tests")

    async def large(command: Ping, call: Call) -> Pong:
        room.calls.append((command, call))
        return Pong(1, "x" * idempotency.MAX_ANSWER_BYTES)

    room.bus.handle("tests", Ping, large)
    await room.bus.run("test:ping", actor=VIEWER, idempotency_key="k")
    with pytest.raises(OutcomeUnknown, match="too large"):
        await room.bus.run("test:ping", actor=VIEWER, idempotency_key="k")
    assert len(room.calls) == 1


@pytest.mark.parametrize("damage", [None, 7, "text", {"phase": "done"}, [], {"at_s": "yesterday"}])
async def test_what_is_kept_and_cannot_be_read_is_not_done_again(damage: Any) -> None:
    room = Room()
    await room.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
    for prefix in ("key:", "answer:"):
        values = {key: damage if key.startswith(prefix) else value for key, value in room.state.values.items()}
        later = Room(MemoryState(values))
        with pytest.raises(OutcomeUnknown):
            await later.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
        assert later.calls == []


async def test_a_node_that_died_under_a_command_says_so_and_does_not_act_again() -> None:
    room = Room()
    at_death: dict[str, Any] = {}

    async def act() -> None:
        at_death.update(room.state.values)

    room.act = act  # type: ignore[method-assign]
    await room.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
    later = Room(MemoryState(at_death))
    with pytest.raises(OutcomeUnknown, match="under way"):
        await later.bus.call(Order(), actor=OPERATOR, idempotency_key="k")
    assert later.calls == []
    assert (OutcomeUnknown.http_status, OutcomeUnknown.retryable) == (409, False)


# ---------------------------------------------------------------- at the same time


async def test_duplicates_at_the_same_time_share_one_act_and_one_answer() -> None:
    room = Room()
    tasks = [room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k") for _ in range(20)]
    assert await asyncio.gather(*tasks) == [Pong(1)] * 20
    assert len(room.calls) == 1
    assert room.bus.counts() == {("test:order", "ok"): 1, ("test:order", "replayed"): 19}
    await room.settled()


async def test_duplicates_share_a_failure_too() -> None:
    room = Room()

    async def act() -> None:
        await asyncio.sleep(0)
        raise Broken

    room.act = act  # type: ignore[method-assign]
    tasks = [room.bus.call(Order(), actor=OPERATOR, idempotency_key="k") for _ in range(3)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Broken, EarlierFailure, EarlierFailure]
    assert {result.code for result in results if isinstance(result, MagError)} == {"MAG-TEST-001"}
    assert len(room.calls) == 1


async def test_a_duplicate_takes_over_from_one_that_never_began() -> None:
    room = Room()
    room.audit.hang = asyncio.Event()
    first = asyncio.create_task(room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k"))
    await asyncio.sleep(0.001)
    second = asyncio.create_task(room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k"))
    await asyncio.sleep(0.001)
    first.cancel()
    room.audit.hang.set()
    assert await second == Pong(1)
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(room.calls) == 1
    await room.settled()


async def test_a_cancelled_act_is_what_its_key_says_from_then_on() -> None:
    room = Room()
    entered = asyncio.Event()

    async def act() -> None:
        entered.set()
        await asyncio.Event().wait()

    room.act = act  # type: ignore[method-assign]
    first = asyncio.create_task(room.bus.call(Order(), actor=OPERATOR, idempotency_key="k"))
    await entered.wait()
    second = asyncio.create_task(room.bus.call(Order(), actor=OPERATOR, idempotency_key="k"))
    await asyncio.sleep(0.001)
    first.cancel()
    for _ in range(2):
        with pytest.raises(EarlierFailure) as told:
            await second
        assert told.value.code == "MAG-CMD-012"
        second = asyncio.create_task(room.bus.call(Order(), actor=OPERATOR, idempotency_key="k"))
    with pytest.raises(EarlierFailure):
        await second
    assert len(room.calls) == 1


async def test_a_duplicate_waits_no_longer_than_its_own_deadline() -> None:
    room = Room()
    release = asyncio.Event()

    async def act() -> None:
        await release.wait()

    room.act = act  # type: ignore[method-assign]
    first = asyncio.create_task(room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k"))
    await asyncio.sleep(0.001)
    with pytest.raises(CommandTimeout, match="same key"):
        await room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k", timeout_s=0.01)
    release.set()
    assert await first == Pong(1)
    assert await room.bus.call(Order(value=1), actor=OPERATOR, idempotency_key="k") == Pong(1)
    assert len(room.calls) == 1


# ---------------------------------------------------------------- bounds


@pytest.fixture
def _few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "Answers", partial(idempotency.Answers, max_keys=5))


@pytest.mark.usefixtures("_few_keys")
async def test_the_oldest_keys_go_when_there_are_too_many() -> None:
    room = Room()
    for number in range(12):
        await room.bus.call(Ping(value=number), actor=VIEWER, idempotency_key=f"k{number}")
    assert len(room.state.values) == 2 * 5
    assert await room.bus.call(Ping(value=11), actor=VIEWER, idempotency_key="k11") == Pong(11)
    assert len(room.calls) == 12
    assert await room.bus.call(Ping(value=99), actor=VIEWER, idempotency_key="k0") == Pong(99), "k0 was forgotten"
    later = Room(MemoryState(room.state.values))
    await later.bus.call(Ping(), actor=VIEWER, idempotency_key="new")
    assert len(later.state.values) == 2 * 5


async def test_a_key_is_forgotten_after_a_day_and_its_traces_leave_with_it() -> None:
    room = Room()
    await room.bus.call(Ping(value=1), actor=VIEWER, idempotency_key="k")
    await room.clock.advance(DAY_S - 1)
    assert await room.bus.call(Ping(value=1), actor=VIEWER, idempotency_key="k") == Pong(1)
    assert len(room.calls) == 1
    await room.clock.advance(1)
    assert await room.bus.call(Ping(value=2), actor=VIEWER, idempotency_key="k") == Pong(2)
    await room.clock.advance(DAY_S)
    await room.bus.call(Ping(), actor=VIEWER, idempotency_key="other")
    assert len(room.state.values) == 2


async def test_a_clock_set_back_forgets_nothing() -> None:
    room = Room()
    await room.bus.call(Ping(value=1), actor=VIEWER, idempotency_key="k")
    room.clock.step_wall_time(-10 * DAY_S)
    assert await room.bus.call(Ping(value=1), actor=VIEWER, idempotency_key="k") == Pong(1)
    assert len(room.calls) == 1


@pytest.mark.usefixtures("_few_keys")
async def test_room_that_cannot_be_made_costs_nobody_an_answer() -> None:
    room = Room()
    room.state.fails = {"delete"}
    for number in range(8):
        assert await room.bus.call(Ping(value=number), actor=VIEWER, idempotency_key=f"k{number}") == Pong(number)
    assert {type(report[3]) for report in room.reports} == {StateUnavailable}


# ---------------------------------------------------------------- every history


ACTORS = {"operator": OPERATOR, "admin": ADMIN}


class Keys(RuleBasedStateMachine):
    """Random histories of one node and its successors against a model: a dict of what each key should answer."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model: dict[tuple[str, str], tuple[int, bool, str, float]] = {}
        self.acts: list[int] = []
        self.fails = False

    @initialize()
    def first_node(self) -> None:
        self.room = Room()
        self._prepare()

    def _prepare(self) -> None:
        async def act() -> None:
            await asyncio.sleep(0)
            self.seen_by_state = dict(self.room.state.values)
            if self.fails:
                raise Broken

        self.room.act = act  # type: ignore[method-assign]

    def _known(self, actor: str, key: str) -> tuple[int, bool, str] | None:
        found = self.model.get((actor, key))
        if found is None or self.room.clock.time_s() - found[3] >= DAY_S:
            return None
        return found[:3]

    @rule(
        actor=st.sampled_from(sorted(ACTORS)),
        key=st.sampled_from(["a", "b", "c"]),
        value=st.integers(0, 2),
        dry_run=st.booleans(),
        fails=st.booleans(),
        times=st.integers(1, 4),
    )
    def send(self, actor: str, key: str, value: int, dry_run: bool, fails: bool, times: int) -> None:
        self.fails = fails
        known, acts = self._known(actor, key), len(self.room.calls)

        async def all_at_once() -> list[Any]:
            asking = [
                self.room.bus.call(Order(value=value), actor=ACTORS[actor], dry_run=dry_run, idempotency_key=key)
                for _ in range(times)
            ]
            return await asyncio.gather(*asking, return_exceptions=True)

        results = self.runner.run(all_at_once())
        outcome = "failed" if fails else "ok"
        if known is None:
            assert len(self.room.calls) == acts + 1
            self.model[actor, key] = (value, dry_run, outcome, self.room.clock.time_s())
        else:
            assert len(self.room.calls) == acts, "done once already"
            outcome = known[2] if known[:2] == (value, dry_run) else "reused"
        kinds = {"ok": (Pong,), "failed": (Broken, EarlierFailure), "reused": (KeyReused,), "lost": (OutcomeUnknown,)}
        assert all(isinstance(result, kinds[outcome]) for result in results), (outcome, results)
        assert all(result == Pong(value) for result in results if isinstance(result, Pong))

    @rule(hours=st.sampled_from([1, 12, 24]))
    def time_passes(self, hours: int) -> None:
        self.runner.run(self.room.clock.advance(hours * 3600.0))

    @rule()
    def restart(self) -> None:
        self._next_node(self.room.state.values)

    @rule(key=st.sampled_from(["a", "b", "c"]), value=st.integers(0, 2))
    def die_while_acting(self, key: str, value: int) -> None:
        known, acts = self._known("operator", key), len(self.room.calls)
        self.fails = False
        sending = self.room.bus.call(Order(value=value), actor=OPERATOR, idempotency_key=key)
        try:
            self.runner.run(sending)
        except (KeyReused, EarlierFailure, OutcomeUnknown):
            assert known is not None
        if len(self.room.calls) > acts:
            assert known is None
            self.model["operator", key] = (value, False, "lost", self.room.clock.time_s())
            self._next_node(self.seen_by_state)  # what the disk held in the midst of the act

    @precondition(lambda self: self.model)
    @rule()
    def audit_is_full(self) -> None:
        self.room.audit.failure = AuditUnavailable("full")
        with pytest.raises(AuditUnavailable):
            self.runner.run(self.room.bus.call(Order(), actor=OPERATOR, idempotency_key="never"))
        self.room.audit.failure = None

    def _next_node(self, values: dict[str, Any]) -> None:
        now_s = self.room.clock.time_s()
        self.room = Room(MemoryState(values))
        self.room.clock.step_wall_time(now_s - self.room.clock.time_s())
        self._prepare()

    @invariant()
    def nothing_is_left(self) -> None:
        if hasattr(self, "room"):
            self.runner.run(self.room.settled())
            assert len(self.room.state.values) <= 2 * len(self.model)

    def teardown(self) -> None:
        self.runner.close()


TestKeys = Keys.TestCase
TestKeys.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
