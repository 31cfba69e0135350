"""A worker is asked, in a real process: what it answers, what it raises, what it asks back, what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import Raw, Struct
from tests.integration.extensions.mediation import Mediation, grant, installed, lines, mediation, question, said

from magmobo.contracts.errors import DeadlineExceeded
from magmobo.extensions.gate.dispatch import ApiDispatcher
from magmobo.extensions.installed import ApiMethod, Caller
from magmobo.extensions.workers.errors import CallTimedOut, CallTooLarge, HandlerDenied, HandlerFailed, WorkerBusy
from magmobo.extensions.workers.window import MAX_WAITING
from magmobo.extensions.workers.worker import Worker
from magx import wire

POINT, AROUND = "api.before_request", "database.around_query"
CODE = f"""
@ext.hook("{POINT}")
async def guard(call):
    if call.data.get("deny"):
        raise HookDenied("not like this")
    await asyncio.sleep(call.data.get("wait", 0))

@ext.hook("{AROUND}")
async def around(call):
    if call.data.get("deny"):
        raise HookDenied("no query")
    if not call.data.get("forget"):
        ok = await call.proceed()
        ext.log.info("the query ended", ok=ok)
    if call.data.get("hang"):
        await asyncio.sleep(60)

@ext.on("orders")
async def order(event):
    if event.data.get("bad"):
        raise ValueError("bad order")

@ext.command("echo")
def echo(arguments):
    ext.metrics.inc("echoes")
    return {{"got": arguments}}

@ext.command("raise")
def fails(arguments):
    raise ValueError("so not")

@ext.command("slow")
async def slow(arguments):
    await asyncio.sleep(60)

@ext.command("ask")
async def ask(arguments):
    try:
        return await ext.kv.get(arguments[0])
    except Exception as error:
        return [type(error).__name__, error.code, str(error)]

@ext.command("settings")
async def settings(arguments):
    return [ext.config["greeting"], sorted(ext.capabilities)]
"""
BINDINGS: dict[str, Any] = {
    "hooks": [{"point": POINT}, {"point": AROUND}],
    "events": [{"name": "orders", "topic": "app.order"}],
    "commands": [{"name": name} for name in ("echo", "raise", "slow", "ask", "settings")],
}


class Get(Struct, frozen=True, forbid_unknown_fields=True):
    key: str


async def kv_get(caller: Caller, args: Get) -> Any:
    match args.key:
        case "hang":
            await asyncio.Event().wait()
        case "large":
            return "x" * wire.MAX_FRAME_BYTES
        case "defect":
            raise RuntimeError("a password of the node")
        case "strange":
            return object()
    return {"value": [args.key, caller.extension.id, list(caller.chain)]}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Mediation]:
    async with mediation(tmp_path) as plane:
        plane.methods.append(ApiMethod("kv.get", "", Get, kv_get))
        yield plane


@pytest.fixture
async def worker(plane: Mediation, tmp_path: Path) -> Worker:
    extension = installed(tmp_path, "one", CODE, **BINDINGS)
    extension.settings = {"greeting": "hello"}
    return await plane.running(extension)


async def command(worker: Worker, name: str, *arguments: str, timeout_s: float = 5.0) -> Any:
    return said(await worker.ask(question(f"command:{name}", {"arguments": arguments}, timeout_s)))


async def test_it_answers(plane: Mediation, worker: Worker) -> None:
    assert await command(worker, "echo", "a", "b") == {"got": ["a", "b"]}
    assert plane.figures == [("echoes", "inc", 1.0)]
    assert worker.handlers == worker.installed.manifest.handlers()


async def test_many_questions_at_once_get_their_own_answers(worker: Worker) -> None:
    answers = await asyncio.gather(*(command(worker, "echo", str(number)) for number in range(300)))
    assert answers == [{"got": [str(number)]} for number in range(300)]
    assert worker.figures()["in_flight"] == 0


async def test_who_waits_for_something_slow_sleeps_and_so_does_who_has_nothing_to_do(
    plane: Mediation, worker: Worker
) -> None:
    """Both ends stay awake for a moment when something is due, and no longer."""
    asking = asyncio.create_task(worker.ask(question(f"hook:{POINT}", {"wait": 1.0}, timeout_s=30)))
    node_s, worker_s = time.process_time(), worker.process.usage().cpu_s if worker.process else 0.0
    await asking
    assert worker.process is not None
    assert time.process_time() - node_s < 0.5
    assert worker.process.usage().cpu_s - worker_s < 0.5


async def test_an_error_of_a_handler_is_told_and_logged_for_the_author(plane: Mediation, worker: Worker) -> None:
    with pytest.raises(HandlerFailed, match="command:raise of one raised ValueError: so not"):
        await command(worker, "raise")
    ((level, message),) = plane.logs
    assert (level, message) == ("error", "command:raise raised ValueError: so not")


async def test_a_hook_says_no(worker: Worker) -> None:
    with pytest.raises(HandlerDenied, match="one denied it: not like this"):
        await worker.ask(question(f"hook:{POINT}", {"deny": True}))


async def test_who_does_not_answer_in_time_is_not_waited_for(plane: Mediation, worker: Worker) -> None:
    with pytest.raises(CallTimedOut, match="did not answer command:slow within 50 ms"):
        await command(worker, "slow", timeout_s=0.05)
    assert await command(worker, "echo") == {"got": []}
    assert worker.figures()["timeouts"] == 1
    assert not plane.crashes


async def test_who_leaves_takes_his_question_along(worker: Worker) -> None:
    asking = asyncio.create_task(command(worker, "slow"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert worker.figures()["in_flight"] == 0
    assert await command(worker, "echo") == {"got": []}


async def test_too_much_for_a_frame_is_an_error_of_this_call_alone(worker: Worker) -> None:
    with pytest.raises(CallTooLarge, match="1048576"):
        await command(worker, "echo", "x" * wire.MAX_FRAME_BYTES)
    assert await command(worker, "echo") == {"got": []}
    assert worker.figures()["in_flight"] == 0


async def test_hooks_are_answered_while_everything_else_is_full(worker: Worker) -> None:
    slow = [asyncio.create_task(command(worker, "slow", timeout_s=20)) for _ in range(100)]
    await asyncio.sleep(0)
    await worker.ask(question(f"hook:{POINT}"))
    with pytest.raises(CallTimedOut):
        await worker.ask(question(f"hook:{POINT}", {"wait": 60}, timeout_s=0.05))
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert worker.figures()["in_flight"] == worker.figures()["waiting"] == 0


async def test_the_queue_of_those_who_wait_is_bounded(worker: Worker) -> None:
    slow = [asyncio.create_task(command(worker, "slow", timeout_s=20)) for _ in range(48 + MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(WorkerBusy):
        await command(worker, "echo")
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert await command(worker, "echo") == {"got": []}


# ---------------------------------------------------------------- events


def order(number: int, **data: Any) -> wire.Item:
    return wire.Item(str(number), "app.order", time.time(), 1, wire.raw(data))


async def test_events_are_taken_but_for_those_that_fail(worker: Worker) -> None:
    acked = await worker.deliver("orders", [order(1), order(2, bad=True), order(3)], 5.0)
    assert acked.failed == [(1, "ValueError: bad order")]
    assert not (await worker.deliver("orders", [order(4)], 5.0)).failed


async def test_a_subscription_without_a_handler_fails(worker: Worker) -> None:
    with pytest.raises(HandlerFailed, match="no handler for event:others"):
        await worker.deliver("others", [order(1)], 5.0)


# ---------------------------------------------------------------- around


class Operation:
    def __init__(self, *, ok: bool = True) -> None:
        self.times, self.ok = 0, ok

    async def __call__(self) -> bool:
        self.times += 1
        return self.ok


@pytest.mark.parametrize("ok", [True, False])
async def test_an_operation_runs_inside_of_its_hook(plane: Mediation, worker: Worker, ok: bool) -> None:
    operation = Operation(ok=ok)
    await worker.around(question(f"hook:{AROUND}"), operation)
    assert operation.times == 1
    assert plane.logs == [("info", "the query ended")]


async def test_time_of_the_operation_does_not_count(worker: Worker) -> None:
    async def slow() -> bool:
        await asyncio.sleep(2.2)
        return True

    await worker.around(question(f"hook:{AROUND}", timeout_s=2.0), slow)
    assert worker.figures()["timeouts"] == 0


async def test_a_hook_that_ends_without_it_fails(worker: Worker) -> None:
    operation = Operation()
    with pytest.raises(HandlerFailed, match="without letting the operation go on"):
        await worker.around(question(f"hook:{AROUND}", {"forget": True}), operation)
    with pytest.raises(HandlerDenied):
        await worker.around(question(f"hook:{AROUND}", {"deny": True}), operation)
    assert operation.times == 0


async def test_time_counts_again_when_the_operation_is_over(worker: Worker) -> None:
    operation = Operation()
    with pytest.raises(CallTimedOut):
        await worker.around(question(f"hook:{AROUND}", {"hang": True}, timeout_s=2.0), operation)
    assert operation.times == 1


async def test_who_leaves_during_the_operation_leaves_nothing(worker: Worker) -> None:
    begun = asyncio.Event()

    async def operation() -> bool:
        begun.set()
        await asyncio.Event().wait()
        return True

    asking = asyncio.create_task(worker.around(question(f"hook:{AROUND}"), operation))
    async with asyncio.timeout(30):
        await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert worker.figures()["in_flight"] == 0


# ---------------------------------------------------------------- what it asks


async def test_it_asks_the_node_on_behalf_of_its_call(worker: Worker) -> None:
    assert await command(worker, "ask", "k") == ["k", "one", []]


@pytest.mark.parametrize(
    ("key", "code", "text"),
    [
        ("large", "MAG-EXT-147", "the answer is too large"),
        ("defect", "MAG-EXT-148", "kv.get failed on the side of the node"),
        ("strange", "MAG-EXT-148", "kv.get failed on the side of the node"),
    ],
)
async def test_it_is_told_why_not_and_nothing_else(worker: Worker, key: str, code: str, text: str) -> None:
    kind, found, message = await command(worker, "ask", key)
    assert (kind, found) == ("ApiError", code)
    assert text in message
    assert "password" not in message


async def test_the_node_works_for_it_no_longer_than_its_call_lasts(worker: Worker) -> None:
    with pytest.raises(CallTimedOut):
        await command(worker, "ask", "hang", timeout_s=0.1)
    assert await command(worker, "ask", "k") == ["k", "one", []]


async def test_a_deadline_of_the_node_is_an_answer_too(plane: Mediation, worker: Worker) -> None:
    dispatcher = ApiDispatcher(plane.methods, plane.gatekeeper, structlog.stdlib.get_logger())
    caller = Caller(worker.installed, (), asyncio.get_running_loop().time() + 0.05)
    with pytest.raises(DeadlineExceeded, match=r"kv\.get did not finish"):
        await dispatcher.call(caller, "kv.get", wire.raw({"key": "hang"}))


# ---------------------------------------------------------------- what it is told, what is on record


async def test_settings_and_capabilities_reach_it_while_it_runs(worker: Worker) -> None:
    greeting, capabilities = await command(worker, "settings")
    assert (greeting, capabilities) == ("hello", sorted(worker.installed.grants))
    worker.installed.settings = {"greeting": "hi"}
    worker.installed.grants = {"network.outbound": grant("network.outbound")}
    worker.tell_settings()
    assert await command(worker, "settings") == ["hi", ["network.outbound"]]


async def test_figures_need_their_capability(plane: Mediation, worker: Worker) -> None:
    worker.installed.grants = {}
    await command(worker, "echo")
    assert not plane.figures
    (record,) = await plane.records("extension.denied")
    assert (record["capability"], record["method"]) == ("system.metrics", "metrics")


async def test_calls_are_on_record_in_batches(plane: Mediation, worker: Worker) -> None:
    for _ in range(20):
        await command(worker, "echo")
    await command(worker, "ask", "k")
    with pytest.raises(CallTimedOut):
        await command(worker, "slow", timeout_s=0.02)
    found: dict[tuple[str, str, str], int] = {}
    records = await plane.records("extension.calls")
    for line in lines(records):
        assert line["extension"] == "one"
        assert 0 <= line["max_ms"] <= line["total_ms"]
        key = (line["kind"], line["name"], line["result"])
        found[key] = found.get(key, 0) + line["count"]
    assert found == {
        ("command", "echo", "ok"): 20,
        ("command", "ask", "ok"): 1,
        ("command", "slow", "timeout"): 1,
        ("api", "kv.get", "ok"): 1,
    }
    assert len(records) < 22
    assert _counters(plane) == {("one", "ok"): 22, ("one", "timeout"): 1}


def _counters(plane: Mediation) -> Mapping[tuple[str, str], float]:
    (family,) = [family for family in plane.metrics.families() if family.name == "mag_extension_calls_total"]
    return {(one.labels["extension"], one.labels["result"]): one.value for one in family.samples}


async def test_health_is_answered_without_a_handler(worker: Worker) -> None:
    answer: Raw = await worker.ask(question("health"))
    assert said(answer) == {"status": "healthy", "detail": ""}
