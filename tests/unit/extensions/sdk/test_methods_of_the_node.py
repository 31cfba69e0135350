"""What the SDK asks is what the node's methods take, under the same names and capabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from magmobo.extensions.adapters.magws import RealtimeMethods
from magmobo.extensions.api.http import HttpMethods
from magmobo.extensions.api.settings import SettingsMethods
from magmobo.extensions.events.methods import EventMethods
from magmobo.extensions.installed import ApiMethod
from magmobo.extensions.sql.methods import SqlMethods
from magx import HttpResponse
from magx.fakes import CAPABILITY_OF
from magx.testing import FakeKernel

NOTHING: Any = None
"""In the place of collaborators: here the methods are only listed."""
EVERYTHING = """
from magx import Extension
ext = Extension()

@ext.command("everything")
async def everything():
    await ext.config.fetch()
    await ext.config.set({"a": 1})
    await ext.db.execute("select $1, $2", 1, "a")
    await ext.db.fetch("select 1")
    await ext.db.fetchval("select $1", [b"a", None, {"b": 1.5}])
    await ext.events.publish("order.placed", {"n": 1}, key="k")
    await ext.events.subscribe("s", active=False)
    await ext.events.replay("s", seconds=60)
    await ext.realtime.broadcast("news", "e", {"a": [1]})
    await ext.realtime.broadcast(["news"], "e", "text")
    await ext.http.get("https://api.example.com/")
    await ext.http.request("patch", "https://api.example.com/", headers={"a": "b"}, body="text", timeout_s=1)
    await ext.http.post("https://api.example.com/", json=[1])
    await ext.kv.put("k", {"a": 1})
    await ext.kv.get("k")
    await ext.kv.list("k", after="a", limit=1)
    await ext.kv.delete("k")
    await ext.jobs.enqueue("j")
    await ext.jobs.enqueue("j", {"a": 1}, delay_s=60)

@ext.on("s")
def s(event): pass

@ext.job("j")
def j(): pass
"""
CAPABILITIES = [
    {"name": "database.read"},
    {"name": "api.emit_events"},
    {"name": "system.background_jobs"},
    {"name": "realtime.broadcast", "channels": ["news"]},
    {"name": "network.outbound", "hosts": ["api.example.com"]},
]


def methods_of_the_node() -> Sequence[ApiMethod]:
    return [
        *SqlMethods(NOTHING, NOTHING).methods(),
        *EventMethods(NOTHING, NOTHING, NOTHING, NOTHING).methods(),
        *RealtimeMethods(NOTHING, denied=NOTHING).methods(),
        *HttpMethods(denied=NOTHING).methods(),
        *SettingsMethods(NOTHING).methods(),
    ]


def test_the_sdk_has_every_method_with_its_capability() -> None:
    assert {method.name: method.capability for method in methods_of_the_node()} == CAPABILITY_OF


def test_the_node_takes_the_arguments_that_the_sdk_sends(tmp_path: Path) -> None:
    manifest = {
        "id": "x", "version": "1.0.0", "capabilities": CAPABILITIES, "commands": [{"name": "everything"}],
        "events": [{"name": "s", "topic": "a.b"}], "jobs": [{"name": "j"}],
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "extension.py").write_text(EVERYTHING)
    with FakeKernel(tmp_path) as kernel:
        kernel.answer("http.request", HttpResponse(status=200))
        kernel.command("everything")
        asked = kernel.calls
    methods = {method.name: method for method in methods_of_the_node()}
    assert {method for method, _ in asked} == set(methods)
    for name, args in asked:
        msgspec.msgpack.decode(msgspec.msgpack.encode(args), type=methods[name].args)
