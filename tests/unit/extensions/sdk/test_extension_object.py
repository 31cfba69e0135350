"""Handlers, and how they are joined with the manifest."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from magx import Extension, HookCall, NoNode
from magx.extension import Handler
from magx.manifest import Mismatch, join, read
from magx.model import Fields

MANIFEST = {
    "hooks": [{"point": "api.on_error", "priority": 90}],
    "events": [{"name": "slow", "topic": "a.b", "where": {"data.n": {"$gt": 1}}}, {"name": "again", "topic": "a.b"}],
    "endpoints": [{"method": "GET", "path": "/x"}],
    "commands": [{"name": "c"}],
    "jobs": [{"name": "j"}],
}


def complete() -> Extension:
    ext = Extension()
    ext.hook("api.on_error", priority=90)(lambda call: None)
    ext.on("a.b")(lambda event: None)
    ext.endpoint("GET", "/x")(lambda request: None)
    ext.command("c")(lambda: None)
    ext.job("j")(lambda job: None)
    ext.health(lambda: True)
    return ext


def test_a_topic_stands_for_every_subscription_of_it() -> None:
    ext = complete()
    join(ext, MANIFEST)
    assert sorted(ext.handlers) == [
        "command:c", "endpoint:GET /x", "event:again", "event:slow", "health", "hook:api.on_error", "job:j",
    ]  # fmt: skip


def test_every_difference_is_said_at_once_and_nothing_changes() -> None:
    ext = complete()
    ext.job("unknown")(lambda: None)
    ext.on("no.such.topic")(lambda event: None)
    before = dict(ext.handlers)
    manifest = {**MANIFEST, "commands": [], "jobs": [{"name": "j"}, {"name": "later"}]}
    with pytest.raises(Mismatch) as said:
        join(ext, manifest)
    assert str(said.value).splitlines() == [
        "the manifest has job:later, the code does not",
        "the code has command:c, the manifest does not",
        "the code has event:no.such.topic, the manifest does not",
        "the code has job:unknown, the manifest does not",
    ]
    assert ext.handlers == before


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        (lambda ext: ext.hook("p", priority=10), "hook:p: the code says priority 10, the manifest 50"),
        (lambda ext: ext.on("e", where={"a": 1}), "event:e: the code says where {'a': 1}, the manifest {}"),
    ],
)
def test_what_a_decorator_repeats_must_be_what_the_manifest_says(bind: Any, said: str) -> None:
    ext = Extension()
    bind(ext)(lambda given: None)
    kind = next(iter(ext.handlers)).partition(":")[0]
    manifest = {"hooks": [{"point": "p"}]} if kind == "hook" else {"events": [{"name": "e", "topic": "a.b"}]}
    with pytest.raises(Mismatch, match="the code says") as raised:
        join(ext, manifest)
    assert str(raised.value) == said


def test_a_subscription_bound_by_its_name_and_its_topic_is_refused() -> None:
    ext = Extension()
    ext.on("slow")(lambda event: None)
    ext.on("a.b")(lambda event: None)
    with pytest.raises(Mismatch, match="event:slow is bound twice"):
        join(ext, MANIFEST)


def test_a_folder_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert read(str(tmp_path)) is None
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    assert read(str(tmp_path)) == MANIFEST
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="Expected `object`"):
        read(str(tmp_path))


@pytest.mark.parametrize(
    "bind",
    [
        lambda ext: ext.hook("p")(lambda: None),
        lambda ext: ext.on("e")(lambda a, b: None),
        lambda ext: ext.endpoint("GET", "/x")(lambda *, a: None),
        lambda ext: ext.command("c")(lambda a, b: None),
        lambda ext: ext.health(lambda a: None),
        lambda ext: ext.job("j")("not a function"),
    ],
)
def test_a_handler_that_cannot_be_called_is_refused_when_it_is_bound(bind: Any) -> None:
    ext = Extension()
    with pytest.raises(TypeError):
        bind(ext)
    assert not ext.handlers


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def around(*args: Any) -> Any:
        return function(*args)

    return around


async def waits(given: Any) -> Any:
    return given


class Callable_:
    def __call__(self, given: Any) -> Any:
        return given

    def method(self, given: Any, more: int = 0) -> Any:
        return given


@pytest.mark.parametrize(
    ("function", "takes_one", "is_async"),
    [
        (lambda: 1, False, False),
        (lambda a: 1, True, False),
        (lambda a=1: 1, True, False),
        (lambda *a: 1, True, False),
        (lambda a, b=1, *, c=2: 1, True, False),
        (waits, True, True),
        (functools.partial(waits), True, True),
        (wrapped(waits), True, True),
        (wrapped(lambda: 1), False, False),
        (Callable_(), True, False),
        (Callable_().method, True, False),
    ],
)
def test_what_a_handler_takes_is_seen_from_it(function: Any, takes_one: bool, is_async: bool) -> None:
    handler = Handler("command", function, {}, may_skip=True)
    assert (handler.takes_one, handler.is_async) == (takes_one, is_async)


@pytest.mark.parametrize(
    "function", [lambda a, b: 1, lambda *, a: 1, lambda a, *, b: 1, functools.partial(lambda a, b: 1), 5]
)
def test_what_cannot_be_called_with_one_is_refused(function: Any) -> None:
    with pytest.raises(TypeError):
        Handler("command", function, {}, may_skip=True)


def test_the_nodes_functions_say_when_there_is_no_node() -> None:
    ext = Extension()
    with pytest.raises(NoNode):
        ext.log.info("x")
    with pytest.raises(NoNode):
        asyncio.run(ext.kv.get("x"))


def test_a_file_run_by_hand_says_what_it_has_and_who_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    ext = complete()
    ext.run()
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "command:c"
    assert "mag extension:test" in printed.err


def test_what_a_hook_is_told_is_changed_by_returning_it() -> None:
    call: HookCall[Any] = HookCall("api.before_request", Fields({"query": "a"}), lambda: asyncio.sleep(0, True))
    with pytest.raises(TypeError, match=re.escape("return {'query': …}")):
        call.data["query"] = "b"
    assert json.dumps(call.data) == '{"query": "a"}'
