"""Case 37 of the hostile list: a worker that does not speak the protocol is cut off, ended, and never started again.

Each attack goes through the whole `Worker`; the peer is played, so that the bytes are exactly these. What is asserted:
the attempt is told once, the process is ended, whoever waited is told, nothing is asked of it any more.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from tests.integration.extensions.mediation import Mediation, installed, mediation, question, until
from tests.integration.extensions.played import Played

from magmobo.extensions.installed import ApiMethod, Caller, Installed
from magmobo.extensions.workers import link
from magmobo.extensions.workers.errors import WorkerEnded, WorkerStartFailed, WorkerUnavailable
from magmobo.extensions.workers.states import WorkerState
from magmobo.extensions.workers.worker import Worker
from magx import wire

HANDLERS = ("hook:api.before_request",)


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def packed(*values: object) -> bytes:
    return framed(msgspec.msgpack.encode(list(values)))


def nested(depth: int) -> bytes:
    return framed(b"\x94\x1a\xa5error\xa1m" + b"\x81\xa1a" * depth + b"\xc0")


ATTACKS: dict[str, bytes] = {
    "a length of 4 GB": b"\xff\xff\xff\xff",
    "a length of one byte too many": struct.pack(">I", wire.MAX_FRAME_BYTES + 1),
    "a length of zero": struct.pack(">I", 0),
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "garbage of the right length": framed(bytes(range(200, 256))),
    "an empty array": framed(b"\x90"),
    "a map in place of an array": framed(msgspec.msgpack.encode({"frame": 21})),
    "a kind that does not exist": packed(99, 1, None),
    "a kind that only the node sends": packed(2, 1, "health", 50, {}),
    "a kind in words": packed("Done", 1, None),
    "too few fields": packed(21),
    "too many fields": packed(24, 1, [], "more"),
    "a number as text": packed(21, "1", None),
    "a negative number": packed(21, -1, None),
    "a number beyond 64 bits as a float": packed(21, 1e30, None),
    "deep nesting": nested(100_000),
    "an answer to nothing": packed(21, 7, None),
    "a no to nothing": packed(22, 7, "no"),
    "a failure of nothing": packed(23, 7, "E", "m", ""),
    "taken events that nobody gave": packed(24, 7, []),
    "letting go on what is not held": packed(28, 7),
    "an answer to a ping that was not sent": packed(29, 1),
    "ready twice": packed(20, wire.PROTOCOL, list(HANDLERS)),
    "a question numbered zero": packed(25, 0, 0, "kv.get", {}),
    "a question with a huge number": packed(25, 2**63, 0, "kv.get", {}),
}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Mediation]:
    async with mediation(tmp_path) as plane:
        yield plane


async def wait(caller: Caller, args: Struct) -> None:
    await asyncio.Event().wait()


class NoArguments(Struct, frozen=True, forbid_unknown_fields=True):
    pass


async def playing(plane: Mediation, folder: Path) -> tuple[Worker, Played]:
    """A worker that is ready, with its played peer."""
    plane.methods.append(ApiMethod("wait", "", NoArguments, wait))
    extension = installed(folder, "hostile", "", hooks=[{"point": "api.before_request"}])

    async def spawn(_: Installed) -> Played:
        return Played()

    worker = plane.worker(extension, spawn=spawn)
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(plane.processes))
    await plane.processes[0].greet(*HANDLERS)
    await starting
    return worker, plane.processes[0]


async def ended_for_good(plane: Mediation, worker: Worker) -> None:
    """What must be true after every attack."""
    await until(lambda: bool(plane.escapes))
    assert len(plane.escapes) == 1
    assert plane.escapes[0].isprintable()
    assert worker.state is WorkerState.ENDED
    assert plane.processes[0].exit.done()
    assert len(plane.processes) == 1
    assert not plane.crashes
    with pytest.raises(WorkerUnavailable):
        await worker.ask(question(HANDLERS[0]))


@pytest.mark.parametrize("attack", ATTACKS)
async def test_what_is_no_frame_ends_it(plane: Mediation, tmp_path: Path, attack: str) -> None:
    worker, peer = await playing(plane, tmp_path)
    asking = asyncio.create_task(worker.ask(question(HANDLERS[0])))
    assert (await peer.next(wire.Call)).id == 1
    await peer.write(ATTACKS[attack])
    with pytest.raises(WorkerEnded):
        await asking
    await ended_for_good(plane, worker)


async def test_an_honest_answer_does_not(plane: Mediation, tmp_path: Path) -> None:
    worker, peer = await playing(plane, tmp_path)
    asking = asyncio.create_task(worker.ask(question(HANDLERS[0])))
    call = await peer.next(wire.Call)
    await peer.send(wire.Done(call.id, wire.raw(None)))
    assert bytes(await asking) == b"\xc0"
    assert not plane.escapes


Moves = Callable[[Worker, Played], Awaitable[None]]


async def _answer_twice(worker: Worker, peer: Played) -> None:
    asking = asyncio.create_task(worker.ask(question(HANDLERS[0])))
    call = await peer.next(wire.Call)
    done = wire.Done(call.id, wire.raw(None))
    await peer.send(done, done)
    await asking


async def _answer_of_another_kind(worker: Worker, peer: Played) -> None:
    asking = asyncio.create_task(worker.ask(question(HANDLERS[0])))
    call = await peer.next(wire.Call)
    await peer.send(wire.Acked(call.id))
    with pytest.raises(WorkerEnded):
        await asking


async def _fail_events_that_were_not_given(worker: Worker, peer: Played) -> None:
    item = wire.Item("1", "a.b", 0.0, 1, wire.raw({}))
    delivering = asyncio.create_task(worker.deliver("all", [item], 5.0))
    delivery = await peer.next(wire.Deliver)
    await peer.send(wire.Acked(delivery.id, [(1, "not mine")]))
    with pytest.raises(WorkerEnded):
        await delivering


async def _put_off_an_event_that_failed(worker: Worker, peer: Played) -> None:
    item = wire.Item("1", "a.b", 0.0, 1, wire.raw({}))
    delivering = asyncio.create_task(worker.deliver("all", [item], 5.0))
    delivery = await peer.next(wire.Deliver)
    await peer.send(wire.Acked(delivery.id, [(0, "once")], [(0, 1.0)]))
    with pytest.raises(WorkerEnded):
        await delivering


async def _fail_an_event_twice(worker: Worker, peer: Played) -> None:
    item = wire.Item("1", "a.b", 0.0, 1, wire.raw({}))
    delivering = asyncio.create_task(worker.deliver("all", [item], 5.0))
    delivery = await peer.next(wire.Deliver)
    await peer.send(wire.Acked(delivery.id, [(0, "once"), (0, "twice")]))
    with pytest.raises(WorkerEnded):
        await delivering


async def _let_go_on_what_is_not_around(worker: Worker, peer: Played) -> None:
    asking = asyncio.create_task(worker.ask(question(HANDLERS[0])))
    call = await peer.next(wire.Call)
    await peer.send(wire.Proceed(call.id))
    with pytest.raises(WorkerEnded):
        await asking


async def _let_go_on_twice(worker: Worker, peer: Played) -> None:
    async def operation() -> bool:
        return True

    asking = asyncio.create_task(worker.around(question(HANDLERS[0]), operation))
    call = await peer.next(wire.Call)
    await peer.send(wire.Proceed(call.id), wire.Proceed(call.id))
    with pytest.raises(WorkerEnded):
        await asking


async def _answer_late_twice(worker: Worker, peer: Played) -> None:
    asking = asyncio.create_task(worker.ask(question(HANDLERS[0])))
    call = await peer.next(wire.Call)
    asking.cancel()
    await peer.next(wire.Cancel)
    done = wire.Done(call.id, wire.raw(None))
    await peer.send(done, done)


async def _half_a_frame(worker: Worker, peer: Played) -> None:
    await peer.write(framed(b"x" * 100)[:50])


async def _a_frame_in_drops(worker: Worker, peer: Played) -> None:
    try:
        for byte in framed(b"x" * 10_000):
            await peer.write(bytes([byte]))
            await asyncio.sleep(0.05)
    except OSError:
        return


MOVES: dict[str, Moves] = {
    "an answer twice": _answer_twice,
    "an answer of another kind": _answer_of_another_kind,
    "failing events that were not given": _fail_events_that_were_not_given,
    "failing an event twice": _fail_an_event_twice,
    "putting off an event that failed": _put_off_an_event_that_failed,
    "letting go on what is not around": _let_go_on_what_is_not_around,
    "letting go on twice": _let_go_on_twice,
    "answering late, twice": _answer_late_twice,
    "half a frame": _half_a_frame,
    "a frame in drops": _a_frame_in_drops,
}


@pytest.mark.parametrize("move", MOVES)
async def test_a_broken_rule_ends_it(
    plane: Mediation, tmp_path: Path, move: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "WHOLE_S", 0.8)  # a frame in drops takes its time
    worker, peer = await playing(plane, tmp_path)
    await MOVES[move](worker, peer)
    await ended_for_good(plane, worker)


async def test_more_questions_than_the_window_end_it(plane: Mediation, tmp_path: Path) -> None:
    worker, peer = await playing(plane, tmp_path)
    await peer.send(*(wire.Api(number, 0, "wait", wire.raw({})) for number in range(1, wire.WINDOW + 2)))
    await ended_for_good(plane, worker)


async def test_a_question_with_a_number_in_use_ends_it(plane: Mediation, tmp_path: Path) -> None:
    worker, peer = await playing(plane, tmp_path)
    await peer.send(wire.Api(1, 0, "wait", wire.raw({})), wire.Api(1, 0, "wait", wire.raw({})))
    await ended_for_good(plane, worker)


@pytest.mark.parametrize("attack", ["garbage of the right length", "a kind that does not exist"])
async def test_one_that_is_not_ready_yet_is_ended_too(plane: Mediation, tmp_path: Path, attack: str) -> None:
    async def spawn(_: Installed) -> Played:
        return Played()

    worker = plane.worker(installed(tmp_path, "hostile", ""), spawn=spawn)
    starting = asyncio.create_task(worker.start())
    await until(lambda: bool(plane.processes))
    await plane.processes[0].write(ATTACKS[attack])
    with pytest.raises(WorkerStartFailed):
        await starting
    await ended_for_good(plane, worker)


async def test_an_answer_that_crossed_with_the_end_of_its_deadline_is_fine(plane: Mediation, tmp_path: Path) -> None:
    worker, peer = await playing(plane, tmp_path)
    asking = asyncio.create_task(worker.ask(question(HANDLERS[0])))
    call = await peer.next(wire.Call)
    asking.cancel()
    await peer.next(wire.Cancel)
    await peer.send(wire.Done(call.id, wire.raw(None)))
    again = asyncio.create_task(worker.ask(question(HANDLERS[0])))
    second = await peer.next(wire.Call)
    await peer.send(wire.Done(second.id, wire.raw(None)))
    await again
    assert not plane.escapes


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_body_is_a_frame_or_a_fault(body: bytes) -> None:
    with suppress(wire.ProtocolFault):
        assert isinstance(wire.decode_from_worker(body), wire.Frame)
