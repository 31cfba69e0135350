"""The runtime in a real process, over a real socket pair."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.unit.extensions.sdk.node_end import serving, spawned

from magx import wire

ECHO = """
@ext.hook("api.before_request")
async def before(call):
    return {"query": call.data["query"] + "&limit=1"}

@ext.hook("api.rbac_check")
def check(call):
    if call.data["role"] == "nobody":
        raise HookDenied("nobody may not")
"""
ASKING = """
import asyncio

@ext.command("ask")
async def ask(arguments):
    try:
        return await ext.db.fetchval("select $1", arguments["value"])
    except RateLimited as error:
        return [error.code, error.retry_s]
    except ApiError as error:
        return str(error)

@ext.command("flood")
async def flood(arguments):
    return await asyncio.gather(*(ext.kv.put(str(n), n) for n in range(arguments["times"])))
"""


async def test_a_ready_worker_says_what_it_handles(tmp_path: Path) -> None:
    gap = "@ext.gap('rows')\ndef gap(event): pass"
    (tmp_path / "extension.py").write_text(f"from magx import *\next = Extension()\n{ECHO}\n{gap}")
    async with spawned() as end:
        end.start(tmp_path)
        ready = await end.next(wire.Ready)
        assert ready == wire.Ready(wire.PROTOCOL, ["hook:api.before_request", "hook:api.rbac_check"])


async def test_hooks_answer_with_what_they_change_or_deny(tmp_path: Path) -> None:
    async with serving(tmp_path, ECHO) as end:
        assert await end.ask("hook:api.before_request", {"query": "a=1"}) == {"query": "a=1&limit=1"}
        assert await end.ask("hook:api.rbac_check", {"role": "web"}) is None
        call = end.call("hook:api.rbac_check", {"role": "nobody"})
        assert await end.next(wire.Denied) == wire.Denied(call, "nobody may not")


async def test_what_a_handler_raises_is_its_answer_and_not_the_end_of_the_worker(tmp_path: Path) -> None:
    code = """
import asyncio, sys
class Odd(Exception):
    def __str__(self): raise ValueError
RAISED = {"exit": SystemExit(1), "keys": KeyboardInterrupt(), "cancel": asyncio.CancelledError(), "odd": Odd(),
    "long": ValueError("x" * 100_000), "half": ValueError("\\ud800")}
@ext.command("fail")
async def fail(arguments):
    raise RAISED[arguments["how"]]
@ext.command("plainly")
def plainly(arguments):
    raise RAISED[arguments["how"]]
@ext.command("deep")
def deep():
    return deep()
@ext.command("strange")
def strange():
    return object()
@ext.command("large")
def large():
    return "x" * 2_000_000
@ext.hook("api.after_request")
def wrong(call):
    return 5
"""
    errors = {"exit": "SystemExit", "keys": "KeyboardInterrupt", "cancel": "CancelledError", "odd": "Odd"}
    async with serving(tmp_path, code) as end:
        for how in ("exit", "keys", "cancel", "odd", "long", "half"):
            for command in ("command:fail", "command:plainly"):
                call = end.call(command, {"arguments": {"how": how}})
                failed = await end.next(wire.Failed)
                assert (failed.id, failed.error) == (call, errors.get(how, "ValueError"))
                assert len(failed.message) <= 500
                assert len(failed.trace) <= 4000
        for handler, error in (
            ("command:deep", "RecursionError"),
            ("command:strange", "TypeError"),
            ("command:large", "ValueError"),
            ("hook:api.after_request", "TypeError"),
            ("command:missing", "LookupError"),
        ):
            end.call(handler, {"arguments": {}})
            assert (await end.next(wire.Failed)).error == error
        assert await end.ask("health") == {"status": "healthy", "detail": ""}


async def test_the_trace_says_where(tmp_path: Path) -> None:
    code = "@ext.command('c')\ndef c():\n    return 1 / 0\n"
    async with serving(tmp_path, code) as end:
        end.call("command:c", {"arguments": {}})
        failed = await end.next(wire.Failed)
        assert (failed.error, failed.message) == ("ZeroDivisionError", "division by zero")
        assert 'extension.py", line 5, in c' in failed.trace
        assert "session.py" not in failed.trace


async def test_questions_to_the_node_name_the_call_they_are_asked_in(tmp_path: Path) -> None:
    async with serving(tmp_path, ASKING) as end:
        first = end.call("command:ask", {"arguments": {"value": 1}})
        second = end.call("command:ask", {"arguments": {"value": 2}})
        asked = [await end.next(wire.Api), await end.next(wire.Api)]
        assert [(one.call_id, one.method) for one in asked] == [(first, "db.fetchval"), (second, "db.fetchval")]
        assert wire.value(asked[0].args) == {"sql": "select $1", "params": [1]}
        for one in reversed(asked):
            end.send(wire.Reply(one.id, wire.raw(one.call_id * 10)))
        answers = {one.id: wire.value(one.result) for one in (await end.next(wire.Done), await end.next(wire.Done))}
        assert answers == {first: first * 10, second: second * 10}


@pytest.mark.parametrize(
    ("retry_s", "said"), [(0.0, "not yours [MAG-EXT-141]"), (2.5, ["MAG-EXT-141", 2.5])], ids=["no", "later"]
)
async def test_a_refusal_is_an_error_with_its_code(tmp_path: Path, retry_s: float, said: object) -> None:
    async with serving(tmp_path, ASKING) as end:
        end.call("command:ask", {"arguments": {"value": 1}})
        api = await end.next(wire.Api)
        end.send(wire.Refuse(api.id, "MAG-EXT-141", "not yours", retry_s))
        assert wire.value((await end.next(wire.Done)).result) == said


async def test_never_more_questions_than_the_window_even_when_calls_are_taken_back(tmp_path: Path) -> None:
    async with serving(tmp_path, ASKING) as end:
        call = end.call("command:flood", {"arguments": {"times": 100}})
        waiting = [await end.next(wire.Api) for _ in range(wire.WINDOW)]
        end.send(wire.Cancel(call))
        end.call("command:ask", {"arguments": {"value": 1}})
        await end.ask("health")
        assert end.came[wire.Api].empty(), "the places of cancelled questions are taken until they are answered"
        end.send(wire.Reply(waiting[0].id, wire.raw(None)))
        assert (await end.next(wire.Api)).method == "db.fetchval"


async def test_a_call_that_is_taken_back_is_cancelled_and_not_answered(tmp_path: Path) -> None:
    code = """
import asyncio
@ext.command("wait")
async def wait():
    try:
        await asyncio.Event().wait()
    finally:
        ext.log.info("let go")
"""
    async with serving(tmp_path, code) as end:
        call = end.call("command:wait", {"arguments": {}})
        await end.ask("health")
        end.send(wire.Cancel(call))
        assert (await end.next(wire.Log)).message == "let go"
        await end.ask("health")
        assert end.came[wire.Failed].empty()
        assert end.came[wire.Done].empty()


async def test_an_around_hook_lets_its_operation_go_on_once(tmp_path: Path) -> None:
    code = """
@ext.hook("database.around_query")
async def around(call):
    ok = await call.proceed()
    try:
        await call.proceed()
    except RuntimeError as error:
        ext.log.info(str(error), ok=ok)
@ext.hook("api.before_request")
async def before(call):
    await call.proceed()
"""
    async with serving(tmp_path, code) as end:
        call = end.call("hook:database.around_query", {"sql": "select 1"})
        assert await end.next(wire.Proceed) == wire.Proceed(call)
        assert end.came[wire.Done].empty()
        end.send(wire.Proceeded(call, ok=False))
        assert (await end.next(wire.Done)).id == call
        assert (await end.next(wire.Log)).fields == {"ok": False}
        end.call("hook:api.before_request", {"query": ""})
        assert (await end.next(wire.Failed)).error == "RuntimeError"
        assert end.came[wire.Proceed].empty()


async def test_events_are_taken_in_order_and_one_that_fails_stands_alone(tmp_path: Path) -> None:
    code = """
@ext.on("numbers")
async def take(event):
    ext.log.info(event.id, n=event.data["n"], topic=event.topic, tries=event.tries)
    if event.data["n"] == 2:
        raise ValueError("not two")
@ext.on("plain")
def plainly(event):
    ext.log.info(event.subscription)
"""
    async with serving(tmp_path, code) as end:
        delivery = end.deliver("numbers", {"n": 1}, {"n": 2}, {"n": 3})
        assert await end.next(wire.Acked) == wire.Acked(delivery, [(1, "ValueError: not two")], [])
        lines = [await end.next(wire.Log) for _ in range(4)]
        failure = lines.pop(2)
        assert failure.message == "numbers could not take an event: ValueError: not two"
        assert (failure.fields["event"], failure.fields["tries"]) == ("e1", 1)
        assert 'raise ValueError("not two")' in failure.fields["trace"]
        assert [(line.message, line.fields["n"]) for line in lines] == [("e0", 1), ("e1", 2), ("e2", 3)]
        assert await end.next(wire.Acked) if end.deliver("plain", {}) else None
        assert (await end.next(wire.Log)).message == "plain"
        end.deliver("missing", {})
        assert (await end.next(wire.Failed)).error == "LookupError"


@pytest.mark.parametrize(("retry_s", "later"), [(0.01, []), (3600.0, [(0, 3600.0)])])
async def test_a_limit_is_waited_for_here_or_by_the_node_and_is_no_failure(
    tmp_path: Path, retry_s: float, later: list[tuple[int, float]]
) -> None:
    code = """
@ext.on("rows")
async def take(event):
    await ext.kv.put(event.id, True)
"""
    async with serving(tmp_path, code) as end:
        delivery = end.deliver("rows", {})
        asked = await end.next(wire.Api)
        end.send(wire.Refuse(asked.id, "MAG-EXT-142", "too often", retry_s))
        if not later:
            end.send(wire.Reply((await end.next(wire.Api)).id, wire.raw(None)))
        assert await end.next(wire.Acked) == wire.Acked(delivery, [], later)


async def test_all_limits_of_a_delivery_are_waited_for_together_only_so_long(tmp_path: Path) -> None:
    code = """
@ext.on("rows")
async def take(event):
    await ext.kv.put(event.id, True)
"""
    async with serving(tmp_path, code) as end:
        delivery = end.deliver("rows", {}, {})
        end.send(wire.Refuse((await end.next(wire.Api)).id, "MAG-EXT-142", "too often", 0.2))
        end.send(wire.Reply((await end.next(wire.Api)).id, wire.raw(None)))
        end.send(wire.Refuse((await end.next(wire.Api)).id, "MAG-EXT-142", "too often", 9.9))
        assert await end.next(wire.Acked) == wire.Acked(delivery, [], [(1, 9.9)])


@pytest.mark.parametrize("retry_s", ["0", "-1", "float('nan')", "'soon'", "None"])
async def test_a_limit_without_an_end_is_a_failure(tmp_path: Path, retry_s: str) -> None:
    code = f"""
from magx import RateLimited
@ext.on("rows")
def take(event):
    raise RateLimited("X", "mine", {retry_s})
"""
    async with serving(tmp_path, code) as end:
        delivery = end.deliver("rows", {})
        assert await end.next(wire.Acked) == wire.Acked(delivery, [(0, "RateLimited: mine [X]")], [])


async def test_a_limit_that_a_call_met_is_told_with_its_end(tmp_path: Path) -> None:
    code = """
@ext.job("tidy")
async def tidy(job):
    await ext.kv.put("seen", True)
"""
    async with serving(tmp_path, code) as end:
        call = end.call("job:tidy", {"id": "1", "arguments": {}, "tries": 1})
        end.send(wire.Refuse((await end.next(wire.Api)).id, "MAG-EXT-143", "used up", 7200.5))
        failed = await end.next(wire.Failed)
        assert (failed.id, failed.error, failed.retry_s) == (call, "RateLimited", 7200.5)
        end.call("job:tidy", {"id": "1", "arguments": {}, "tries": 1})
        end.send(wire.Refuse((await end.next(wire.Api)).id, "MAG-EXT-141", "not granted"))
        assert (await end.next(wire.Failed)).retry_s == 0


async def test_a_delivery_that_is_taken_back_goes_no_further(tmp_path: Path) -> None:
    code = """
import asyncio
@ext.on("rows")
async def take(event):
    ext.log.info(event.id)
    await asyncio.Event().wait()
"""
    async with serving(tmp_path, code) as end:
        delivery = end.deliver("rows", {}, {}, {})
        assert (await end.next(wire.Log)).message == "e0"
        end.send(wire.Cancel(delivery))
        for _ in range(3):
            await end.ask("health")
        assert end.came[wire.Log].empty()
        assert end.came[wire.Acked].empty()


async def test_settings_count_from_the_next_call_on(tmp_path: Path) -> None:
    code = """
@ext.command("look")
def look():
    return [ext.config["a"], ext.config.get("b"), dict(ext.config), sorted(ext.capabilities)]
"""
    async with serving(tmp_path, code, settings={"a": 1}) as end:
        assert await end.ask("command:look", {"arguments": {}}) == [1, None, {"a": 1}, ["database.read"]]
        end.send(wire.Settings({"a": 2, "b": 3}, []))
        assert await end.ask("command:look", {"arguments": {}}) == [2, 3, {"a": 2, "b": 3}, []]


async def test_a_ping_is_answered_while_handlers_wait(tmp_path: Path) -> None:
    async with serving(tmp_path, ASKING) as end:
        end.call("command:ask", {"arguments": {"value": 1}})
        end.send(wire.Ping(7))
        assert await end.next(wire.Pong) == wire.Pong(7)


@pytest.mark.parametrize("endpoint", [None, {"a": 1}, "text", b"\0", [1], 5])
async def test_an_endpoint_may_return_what_reads_best(tmp_path: Path, endpoint: object) -> None:
    code = f"""
@ext.endpoint("POST", "/x")
async def x(request):
    assert (request.method, request.params, request.json()) == ("POST", {{"q": "2", "e": ""}}, [1])
    return {endpoint!r}
"""
    argument = {
        "method": "POST", "path": "/x", "query": "q=1&q=2&e=", "headers": {}, "body": b"[1]", "role": "", "claims": {},
        "anonymous": True,
    }  # fmt: skip
    expected: dict[str, tuple[int, str, bytes]] = {
        "None": (204, "", b""),
        "{'a': 1}": (200, "application/json", b'{"a":1}'),
        "'text'": (200, "text/plain; charset=utf-8", b"text"),
        r"b'\x00'": (200, "application/octet-stream", b"\0"),
        "[1]": (200, "application/json", b"[1]"),
        "5": (200, "application/json", b"5"),
    }
    async with serving(tmp_path, code) as end:
        answer = await end.ask("endpoint:POST /x", argument)
        assert (answer["status"], answer["headers"].get("content-type", ""), answer["body"]) == expected[repr(endpoint)]


# ---------------------------------------------------------------- what it logs


async def test_prints_and_standard_logging_become_lines(tmp_path: Path) -> None:
    code = """
import logging, sys
@ext.command("speak")
def speak():
    print("printed", 1)
    print("to stderr", file=sys.stderr)
    logging.getLogger("lib").warning("from %s", "a library")
    logging.getLogger("lib").debug("quiet")
    ext.log.debug("said", odd=object, n=2**70, surrogate="\\ud800")
    ext.log.info("x" * 10_000, big="x" * 100_000)
    ext.metrics.inc("a_total")
    ext.metrics.observe("b_seconds", 0.5)
"""
    async with serving(tmp_path, code) as end:
        await end.ask("command:speak", {"arguments": {}})
        lines = [await end.next(wire.Log) for _ in range(5)]
        assert [(line.level, line.message[:20]) for line in lines] == [
            ("info", "printed 1"),
            ("warning", "to stderr"),
            ("warning", "from a library"),
            ("debug", "said"),
            ("info", "x" * 20),
        ]
        assert lines[3].fields == {"odd": "<class 'object'>", "n": str(2**70), "surrogate": "?"}
        assert len(lines[4].message) == 4000
        assert list(lines[4].fields) == ["left_out_bytes"]
        figures = [await end.next(wire.Figure), await end.next(wire.Figure)]
        assert figures == [wire.Figure("a_total", "inc", 1.0), wire.Figure("b_seconds", "observe", 0.5)]


async def test_a_node_that_does_not_read_costs_the_worker_lines_not_memory(tmp_path: Path) -> None:
    code = """
@ext.command("flood")
def flood():
    for n in range(20_000):
        ext.log.info("x" * 1000)
@ext.command("after")
def after():
    ext.log.info("after")
"""
    async with serving(tmp_path, code) as end:
        await end.ask("health")
        before = end.worker.usage().private_bytes
        end.read_no_more()
        call = end.call("command:flood", {"arguments": {}})
        end.read_again()
        assert (await end.next(wire.Done)).id == call
        assert end.worker.usage().private_bytes - before < 8 * 1_048_576
        await end.ask("command:after", {"arguments": {}})
        lines = [end.came[wire.Log].get_nowait() for _ in range(end.came[wire.Log].qsize())]
        (dropped,) = [line for line in lines if line.message.startswith("lines and figures were dropped")]
        assert len(lines) + dropped.fields["count"] == 20_002
        assert lines[-1].message == "after"


async def test_a_task_of_the_authors_that_ends_badly_leaves_a_line_and_the_worker(tmp_path: Path) -> None:
    code = """
import asyncio
async def bad(error): raise error
@ext.command("begin")
async def begin(arguments):
    ext.task = asyncio.create_task(bad(SystemExit(1) if arguments["exit"] else ValueError("odd")))
@ext.command("stop")
def stop():
    ext.task = None
    asyncio.get_event_loop().stop()
"""
    async with serving(tmp_path, code) as end:
        await end.ask("command:begin", {"arguments": {"exit": True}})
        line = await end.next(wire.Log)
        assert (line.level, line.message) == ("error", "a task of the extension raised: SystemExit: 1")
        await end.ask("command:begin", {"arguments": {"exit": False}})
        await end.ask("command:stop", {"arguments": {}})
        assert (await end.next(wire.Log)).level == "error"
        await end.ask("health")


# ---------------------------------------------------------------- its beginning, its end


LOADING = {
    "syntax": ("def", "SyntaxError"),
    "raises": ("1 / 0", "ZeroDivisionError"),
    "exits": ("raise SystemExit(0)", "SystemExit"),
    "nothing": ("", "AttributeError"),
    "another thing": ("ext = 5", "TypeError: extension:ext is a int, not an Extension"),
    "twice": (
        "from magx import *\next = Extension()\n@ext.job('j')\ndef a(): pass\n@ext.job('j')\ndef b(): pass",
        "job:j has a handler already: a",
    ),
    "two arguments": (
        "from magx import *\next = Extension()\n@ext.hook('h')\ndef a(b, c): pass",
        "a handler of kind hook takes one argument",
    ),
    "asks too early": ("from magx import *\nExtension().log.info('x')", "NoNode: no node is there yet"),
}


@pytest.mark.parametrize(("code", "said"), LOADING.values(), ids=LOADING)
async def test_code_that_does_not_load_ends_the_worker_with_the_reason(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "extension.py").write_text(code)
    async with spawned() as end:
        end.start(tmp_path)
        line = await end.next(wire.Log)
        assert line.level == "error"
        assert line.message.startswith("the extension did not load: ")
        assert said in line.message
        assert line.fields["trace"]
        assert (await end.ended()).code == 3


async def test_the_code_is_held_against_the_manifest_beside_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"jobs": [{"name": "a"}], "events": [{"name": "n", "topic": "t.t"}]}')
    (tmp_path / "extension.py").write_text(
        "from magx import *\next = Extension()\n@ext.job('b')\ndef b(): pass\n@ext.on('t.t')\ndef t(event): pass\n"
    )
    async with spawned() as end:
        end.start(tmp_path)
        message = (await end.next(wire.Log)).message
        assert "the manifest has job:a, the code does not\nthe code has job:b, the manifest does not" in message


async def test_vendored_code_is_found_behind_the_extensions_own(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "carried.py").write_text("VALUE = 42")
    code = "import carried\n@ext.command('c')\ndef c(): return carried.VALUE\n"
    async with serving(tmp_path, code) as end:
        assert await end.ask("command:c", {"arguments": {}}) == 42


async def test_a_package_may_be_the_entry(tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "__init__.py").write_text("")
    (tmp_path / "desk" / "words.py").write_text("WORD = 'from within'")
    (tmp_path / "desk" / "main.py").write_text(
        "from magx import *\nfrom .words import WORD\next = Extension()\n@ext.command('c')\ndef c(): return WORD\n"
    )
    async with spawned() as end:
        end.start(tmp_path, entry="desk.main:ext")
        await end.next(wire.Ready)
        assert await end.ask("command:c", {"arguments": {}}) == "from within"


async def test_one_file_is_a_module_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import extension\ndef same(ext): return extension.ext is ext\n")
    code = """
import dataclasses, inspect, pickle, beside
@dataclasses.dataclass
class Kept:
    n: "int"
@ext.command("c")
def c():
    again = pickle.loads(pickle.dumps(Kept(1)))
    return [again.n, beside.same(ext), __name__, __spec__.name, "class Kept" in inspect.getsource(Kept)]
"""
    async with serving(tmp_path, code) as end:
        assert await end.ask("command:c", {"arguments": {}}) == [1, True, "extension", "extension", True]


async def test_it_ends_with_its_socket(tmp_path: Path) -> None:
    async with serving(tmp_path, ASKING) as end:
        end.call("command:ask", {"arguments": {"value": 1}})
        await end.next(wire.Api)
        end.hang_up()
        assert (await end.ended()).code == 0


async def test_it_ends_when_the_first_frame_is_not_a_start() -> None:
    async with spawned() as end:
        end.send(wire.Ping(1))
        assert (await end.ended()).code == 0


async def test_stop_waits_for_what_is_under_way(tmp_path: Path) -> None:
    async with serving(tmp_path, ASKING) as end:
        end.call("command:ask", {"arguments": {"value": 1}})
        api = await end.next(wire.Api)
        end.send(wire.Stop(60_000))
        await end.ask("health")
        end.send(wire.Reply(api.id, wire.raw("done")))
        assert wire.value((await end.next(wire.Done)).result) == "done"
        assert (await end.ended()).code == 0


async def test_stop_does_not_wait_longer_than_it_says(tmp_path: Path) -> None:
    async with serving(tmp_path, ASKING) as end:
        end.call("command:ask", {"arguments": {"value": 1}})
        await end.next(wire.Api)
        end.send(wire.Stop(10))
        assert (await end.ended()).code == 0


async def test_stop_ends_an_idle_worker_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, ASKING) as end:
        end.send(wire.Stop(60_000))
        assert (await end.ended()).code == 0


async def test_large_frames_travel_both_ways(tmp_path: Path) -> None:
    code = "@ext.command('echo')\nasync def echo(arguments): return arguments['data']\n"
    async with serving(tmp_path, code) as end:
        data = os.urandom(1_000_000)
        answers = await asyncio.gather(*(end.ask("command:echo", {"arguments": {"data": data}}) for _ in range(5)))
        assert answers == [data] * 5


async def test_a_killed_worker_is_seen_as_such(tmp_path: Path) -> None:
    async with serving(tmp_path, ECHO) as end:
        assert end.worker.usage().memory_bytes > end.worker.usage().private_bytes > 0
        end.worker.kill()
        ended = await end.ended()
        assert (ended.code, ended.signal, ended.escape) == (None, signal.SIGKILL, "")
        assert end.worker.usage().memory_bytes == 0
