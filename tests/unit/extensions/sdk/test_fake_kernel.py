"""The fake kernel: what it lets happen, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magx import ApiError, HookDenied, HttpResponse, RateLimited
from magx.manifest import Mismatch
from magx.testing import FakeKernel, HandlerFailed

Make = Callable[..., FakeKernel]
ALL = [
    {"name": "database.write"},
    {"name": "database.admin"},
    {"name": "api.intercept_request"},
    {"name": "api.emit_events"},
    {"name": "system.background_jobs"},
    {"name": "network.outbound", "hosts": ["api.example.com", "*.example.org:8443"]},
    {"name": "realtime.broadcast", "channels": ["news", "room-*"]},
]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Make:
    def made(code: str, *, given: dict[str, Any] | None = None, capabilities: Any = ALL, **more: Any) -> FakeKernel:
        manifest = {"id": "x", "version": "1.0.0", "capabilities": capabilities, **more}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / "extension.py").write_text(f"from magx import *\next = Extension()\n{code}")
        kernel = FakeKernel(tmp_path, given)
        request.addfinalizer(kernel.close)
        return kernel

    return made


def asking(expression: str) -> str:
    return f"@ext.command('c')\nasync def c(a):\n    return await ext.{expression}\n"


COMMANDS = [{"name": "c"}]


def test_a_hook_changes_denies_or_fails(make: Make) -> None:
    code = """
@ext.hook("api.before_request")
def before(call):
    match call.data["table"]:
        case "changed": return {"query": "limit=1"}
        case "denied": raise HookDenied("not here")
        case "broken": raise KeyError("k")
        case "more": return {"role": "admin"}
"""
    kernel = make(code, hooks=[{"point": "api.before_request"}])
    assert kernel.hook("api.before_request") == {}
    assert kernel.hook("api.before_request", table="changed") == {"query": "limit=1"}
    with pytest.raises(HookDenied, match="not here"):
        kernel.hook("api.before_request", table="denied")
    with pytest.raises(HandlerFailed, match=r"KeyError: 'k'\nTraceback"):
        kernel.hook("api.before_request", table="broken")
    with pytest.raises(ValueError, match="does not let a hook change role"):
        kernel.hook("api.before_request", table="more")
    with pytest.raises(ValueError, match="has no tabel; it has request_id"):
        kernel.hook("api.before_request", tabel="x")
    with pytest.raises(ValueError, match=r"no hook point api\.before"):
        kernel.hook("api.before")
    kernel.revoke("api.intercept_request")
    with pytest.raises(ValueError, match=r"takes api\.intercept_request"):
        kernel.hook("api.before_request")


@pytest.mark.parametrize("ok", [True, False])
def test_an_around_hook_hears_how_its_operation_ended(make: Make, ok: bool) -> None:
    code = """
@ext.hook("database.around_query")
async def around(call):
    ext.log.info("went on", ok=await call.proceed(), sql=call.data["sql"], read_only=call.data["read_only"])
"""
    kernel = make(code, hooks=[{"point": "database.around_query"}])
    kernel.hook("database.around_query", sql="select 1", proceed_ok=ok)
    assert kernel.proceeded == 1
    assert kernel.lines == [("info", "went on", {"ok": ok, "sql": "select 1", "read_only": False})]


def test_events_reach_the_subscriptions_that_want_them(make: Make) -> None:
    code = """
seen = []
@ext.on("rows")
def rows(event): seen.append(("rows", event.id, event.topic))
@ext.on("every")
async def every(event): seen.append(("every", event.id, event.topic))
@ext.command("c")
def c(): return seen
"""
    events = [
        {"name": "rows", "topic": "database.change", "tables": ["public.t"], "where": {"data.op": "insert"}},
        {"name": "every", "topic": "database.**"},
    ]
    reading = [{"name": "database.read", "tables": ["public.t", "public.u"]}]
    kernel = make(code, events=events, commands=COMMANDS, capabilities=reading)
    row = {"schema": "public", "table": "t", "op": "insert"}
    assert kernel.emit("database.change", row) == ["rows", "every"]
    assert kernel.emit("database.change", {**row, "op": "delete"}) == ["every"]
    assert kernel.emit("database.change", {**row, "table": "u"}) == ["every"]
    assert kernel.emit("config.reloaded", {}) == []
    kernel.event("rows", {}, event_id="mine")
    assert kernel.command("c")[:2] == [
        ["rows", "event-1", "database.change"], ["every", "event-1", "database.change"]
    ]  # fmt: skip
    assert kernel.command("c")[-1] == ["rows", "mine", "database.change"]


def test_of_a_row_the_readable_columns_are_seen_while_they_are_granted(make: Make) -> None:
    code = "@ext.on('rows')\ndef rows(event): ext.log.info(event.data['op'], **event.data['record'])\n"
    events = [{"name": "rows", "topic": "database.change", "tables": ["public.t"], "where": {"data.record.a": 1}}]
    reading = [{"name": "database.read", "tables": ["public.t(a, b)"]}]
    kernel = make(code, events=events, capabilities=reading)
    row = {"schema": "public", "table": "t", "op": "insert", "record": {"a": 1, "b": 2, "c": 3}, "old_record": None}
    assert kernel.emit("database.change", row) == ["rows"]
    assert kernel.lines == [("info", "insert", {"a": 1, "b": 2})]
    assert kernel.emit("database.change", {**row, "table": "u"}) == []
    kernel.revoke("database.read")
    assert kernel.emit("database.change", row) == []


def test_a_figure_takes_its_capability(make: Make) -> None:
    code = "@ext.command('c')\ndef c(): ext.metrics.inc('n_total')\n"
    with pytest.raises(HandlerFailed, match=r"takes system\.metrics"):
        make(code, commands=COMMANDS).command("c")


def test_an_event_that_is_not_taken_says_why(make: Make) -> None:
    kernel = make("@ext.on('e')\ndef e(event): raise ValueError('no')\n", events=[{"name": "e", "topic": "a.b"}])
    with pytest.raises(HandlerFailed, match="ValueError: no"):
        kernel.event("e", {})


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_gap_is_told_apart_from_events_or_logged(make: Make, kind: str) -> None:
    events = [{"name": "e", "topic": "a.b"}]
    taking = "@ext.on('e')\ndef e(event): raise AssertionError\n"
    kernel = make(taking, events=events)
    kernel.gap("e", "overflow")
    (line,) = kernel.lines
    assert (line[0], line[1], line[2]["reason"]) == ("warning", "events of e may be missing", "overflow")
    code = f"{taking}@ext.gap('a.b')\n{kind} gap(event): ext.log.info(event.data['reason'], s=event.subscription)\n"
    kernel = make(code, events=events)
    kernel.gap("e", "node")
    assert kernel.lines == [("info", "node", {"s": "e"})]
    with pytest.raises(Mismatch, match="the code has gap:f, the manifest has no such subscription"):
        make(f"{taking}@ext.gap('f')\ndef gap(event): pass\n", events=events)


@pytest.mark.parametrize(
    ("expression", "needed"),
    [
        ("db.execute('select 1')", "database.read"),
        ("events.publish('n', {})", "api.emit_events"),
        ("realtime.broadcast('news', 'e', {})", "realtime.broadcast"),
        ("http.get('https://api.example.com/')", "network.outbound"),
        ("jobs.enqueue('j')", "system.background_jobs"),
    ],
)
def test_what_the_manifest_does_not_ask_for_is_refused(make: Make, expression: str, needed: str) -> None:
    kernel = make(asking(expression), commands=COMMANDS, capabilities=[])
    with pytest.raises(HandlerFailed, match=rf"ApiError: .*takes {needed}, which is not granted \[MAG-EXT-141\]"):
        kernel.command("c")
    assert len(kernel.calls) == 1


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("http.get('https://api.example.com/x')", True),
        ("http.get('https://api.example.com:444/x')", False),
        ("http.get('https://a.example.org:8443/')", True),
        ("http.get('https://a.example.org/')", False),
        ("http.get('https://example.org:8443/')", False),
        ("http.get('https://evil.com/api.example.com')", False),
        ("realtime.broadcast(['news', 'room-7'], 'e', {})", True),
        ("realtime.broadcast(['news', 'other'], 'e', {})", False),
    ],
)
def test_scopes_of_the_manifest_count(make: Make, expression: str, is_allowed: bool) -> None:
    kernel = make(asking(f"{expression} and None"), commands=COMMANDS)
    kernel.answer("http.request", HttpResponse(status=200))
    if is_allowed:
        kernel.command("c")
    else:
        with pytest.raises(HandlerFailed, match="of the manifest"):
            kernel.command("c")


def test_a_write_capability_lets_read_and_a_revoked_one_does_not(make: Make) -> None:
    kernel = make(asking("db.fetch('select $1', 1)"), commands=COMMANDS, capabilities=[{"name": "database.write"}])
    assert kernel.command("c") == []
    assert kernel.statements == [("select $1", [1])]
    kernel.revoke("database.write")
    with pytest.raises(HandlerFailed, match="not granted"):
        kernel.command("c")
    kernel.grant("database.write")
    kernel.command("c")
    with pytest.raises(ValueError, match="does not ask for"):
        kernel.grant("network.outbound")


def test_answers_are_values_errors_or_functions(make: Make) -> None:
    code = """
@ext.command("c")
async def c(a):
    try:
        return await ext.db.fetchval("select $1", a.get("n"))
    except RateLimited as error:
        return [error.code, error.message, error.retry_s]
"""
    kernel = make(code, commands=COMMANDS)
    assert kernel.command("c") is None
    kernel.answer("db.fetchval", 5)
    assert kernel.command("c") == 5
    kernel.answer("db.fetchval", lambda args: args["params"][0] * 2)
    assert kernel.command("c", n=21) == 42
    kernel.answer("db.fetchval", RateLimited("MAG-EXT-142", "too often", 1.5))
    assert kernel.command("c") == ["MAG-EXT-142", "too often", 1.5]
    kernel.answer("db.fetchval", ApiError("MAG-EXT-200", "no such table"))
    with pytest.raises(HandlerFailed, match=r"ApiError: no such table \[MAG-EXT-200\]"):
        kernel.command("c")


def test_the_outside_answers_only_what_the_test_says(make: Make) -> None:
    code = """
@ext.command("c")
async def c(a):
    answer = await ext.http.post("https://api.example.com/", json={"a": 1}, headers={"X-K": "v"})
    return [answer.status, answer.ok, answer.text(), answer.json()]
"""
    kernel = make(code, commands=COMMANDS)
    with pytest.raises(HandlerFailed, match="no answer is set"):
        kernel.command("c")
    kernel.answer("http.request", HttpResponse(status=201, body=b"[1]"))
    assert kernel.command("c") == [201, True, "[1]", [1]]
    assert kernel.calls[-1].args == {
        "method": "POST", "url": "https://api.example.com/", "body": b'{"a":1}', "timeout_s": 10.0,
        "headers": {"X-K": "v", "content-type": "application/json"},
    }  # fmt: skip


def test_values_are_kept_and_jobs_wait(make: Make) -> None:
    code = """
@ext.command("c")
async def c(a):
    await ext.kv.put("n", await ext.kv.get("n", 0) + 1)
    await ext.jobs.enqueue("j", {"n": await ext.kv.get("n")}, delay_s=5)
    ext.log.info(await ext.events.publish("done", {"n": 1}, key="k"), keys=await ext.kv.list("n"))
@ext.job("j")
async def j(job):
    ext.log.info(job.id, n=job.arguments["n"], tries=job.tries)
    await ext.kv.delete("n")
    await ext.kv.delete("n")
"""
    kernel = make(code, commands=COMMANDS, jobs=[{"name": "j"}])
    kernel.kv["n"] = 4
    kernel.command("c")
    assert kernel.kv == {"n": 5}
    assert kernel.published == [("done", {"n": 1})]
    assert kernel.run_jobs() == 1
    assert kernel.lines == [("info", "published-5", {"keys": ["n"]}), ("info", "event-1", {"n": 5, "tries": 1})]
    assert kernel.kv == {}
    assert kernel.run_jobs() == 0


@pytest.mark.parametrize("expression", ["jobs.enqueue('other')", "events.replay('other', seconds=1)"])
def test_names_that_the_manifest_does_not_have_are_refused(make: Make, expression: str) -> None:
    kernel = make(asking(expression), commands=COMMANDS)
    with pytest.raises(HandlerFailed, match="the manifest has no other among its"):
        kernel.command("c")


def test_settings_have_their_defaults_and_change(make: Make) -> None:
    code = """
@ext.command("c")
async def c(a):
    if a:
        await ext.config.set(a)
    return [dict(ext.config), dict(await ext.config.fetch())]
"""
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "default": 1},
            "b": {"type": "string"},
            "in": {"type": "object", "properties": {"c": {"type": "integer", "default": 3}}},
        },
    }
    kernel = make(code, commands=COMMANDS, settings=schema, given={"b": "x"})
    told = {"a": 1, "b": "x", "in": {"c": 3}}
    assert kernel.command("c") == [told, told]
    kernel.configure(a=2)
    assert kernel.command("c")[0] == told | {"a": 2}
    assert kernel.command("c", a=5) == [told | {"a": 5}, told | {"a": 5}]
    assert kernel.command("c", a=None, b=None)[0] == {"a": 1, "in": {"c": 3}}


def test_it_has_a_folder_of_its_own_or_none(make: Make, tmp_path: Path) -> None:
    code = "@ext.command('c')\ndef c(): return ext.data_dir and (ext.data_dir / 'a').write_text('abc')\n"
    make(code, commands=COMMANDS).close()
    with FakeKernel(tmp_path, data_dir=tmp_path) as kernel:
        assert kernel.command("c") is None
    make(code, commands=COMMANDS, capabilities=[{"name": "filesystem.write"}]).close()
    with FakeKernel(tmp_path, data_dir=tmp_path) as kernel:
        assert kernel.command("c") == 3
    assert (tmp_path / "a").read_text() == "abc"


def test_an_endpoint_knows_who_asks(make: Make) -> None:
    code = """
@ext.endpoint("POST", "/who")
def who(request):
    if request.anonymous:
        return Response(401, {"say": "who"}, {"WWW-Authenticate": "Bearer"})
    return [request.role, request.claims["sub"], request.json(), request.headers["accept"]]
"""
    kernel = make(code, endpoints=[{"method": "POST", "path": "/who"}])
    refused = kernel.request("POST", "/who")
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    answer = kernel.request("POST", "/who", role="web", claims={"sub": "1"}, json=[1], headers={"accept": "*/*"})
    assert answer.json() == ["web", "1", [1], "*/*"]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", {"status": "healthy", "detail": ""}),
        ("False", {"status": "unhealthy", "detail": ""}),
        ("{'a': True, 'b': False, 'c': False}", {"status": "unhealthy", "detail": "b, c"}),
        ("{'status': 'degraded', 'detail': 'slow'}", {"status": "degraded", "detail": "slow"}),
        ("{'status': 'degraded'}", {"status": "degraded", "detail": ""}),
    ],
)
def test_health_in_every_way_it_may_be_said(make: Make, returned: str, said: dict[str, str]) -> None:
    assert make(f"@ext.health\nasync def h(): return {returned}\n").health() == said


@pytest.mark.parametrize("returned", ["5", "{'status': 'fine'}", "{'a': 1}"])
def test_health_said_otherwise_fails(make: Make, returned: str) -> None:
    with pytest.raises(HandlerFailed, match="a health handler returns"):
        make(f"@ext.health\ndef h(): return {returned}\n").health()


def test_a_value_that_cannot_travel_fails_as_in_a_worker(make: Make) -> None:
    kernel = make(asking("db.execute('select $1', object())"), commands=COMMANDS)
    with pytest.raises(HandlerFailed, match=r"ValueError: db\.execute: .*object"):
        kernel.command("c")
    kernel = make(asking("kv.put('k', 'x' * 2_000_000)"), commands=COMMANDS)
    with pytest.raises(HandlerFailed, match=r"ValueError: kv\.put: the arguments are a frame of"):
        kernel.command("c")


def test_what_it_leaves_behind_is_nothing(make: Make, tmp_path: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    (tmp_path / "beside.py").write_text("VALUE = 1")
    code = """
import asyncio, beside
@ext.command("c")
async def c(a): ext.task = asyncio.create_task(asyncio.Event().wait())
"""
    with make(code, commands=COMMANDS) as kernel:
        kernel.command("c")
        assert {"extension", "beside"} <= set(sys.modules)
        task: asyncio.Task[Any] = kernel.extension.task  # type: ignore[attr-defined]
    assert task.cancelled()
    assert (sys.path, set(sys.modules)) == (path, modules)


def test_code_that_differs_from_the_manifest_does_not_load(make: Make) -> None:
    modules = set(sys.modules)
    with pytest.raises(Mismatch, match="the manifest has command:c, the code does not"):
        make("", commands=COMMANDS)
    assert set(sys.modules) == modules


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json in"):
        FakeKernel(tmp_path)


def test_a_test_file_without_an_extension_above_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_x(magx_kernel): pass")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", tmp_path, "-p", "no:magx",
         "-p", "magx.pytest_plugin", tmp_path],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "no manifest.json in a folder above" in ran.stdout
