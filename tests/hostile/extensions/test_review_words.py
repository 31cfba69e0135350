"""What an extension says reaches clients, operators and machines as one bounded line, and spoils no page of figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hostile.extensions.node_gate import gate
from tests.hostile.extensions.review_parts import packed, passable_folder
from tests.integration.extensions.mediation import installed, mediation

from magmobo.contracts.errors import HookDenied, HookUnavailable, MagError
from magmobo.contracts.hooks import EndpointContext, RequestContext
from magmobo.extensions.figures import MAX_VALUE, ExtensionFigures
from magmobo.kernel.observe.metrics import MetricsRegistry

CODE = r"""
SHOUT = "\x1b]0;owned\x07\r\nHTTP/1.1 200 \u202e" + "x" * 700_000

@ext.hook("api.register_endpoint")
async def denies(call):
    raise HookDenied(SHOUT)

@ext.hook("api.rbac_check")
async def fails(call):
    raise type("E" * 90_000, (Exception,), {})(SHOUT)
"""
REQUEST: dict[str, Any] = dict.fromkeys(
    ("request_id", "method", "path", "query", "table", "role", "claims", "body"), ""
)


@pytest.fixture
def passable() -> Iterator[Path]:
    yield from passable_folder()


def is_calm(text: str) -> bool:
    return len(text) < 1000 and text.isprintable()


async def test_a_no_and_an_error_are_one_bounded_line(tmp_path: Path) -> None:
    points = ["api.register_endpoint", "api.rbac_check"]
    async with mediation(tmp_path) as plane:
        plane.be_patient()
        await plane.running(installed(tmp_path, "loud", CODE, hooks=[{"point": point} for point in points]))
        denies, fails = (plane.board.point(point).chain for point in points)
        assert denies is not None
        assert fails is not None
        with pytest.raises(HookDenied) as denied:
            await denies.before(EndpointContext(extension="a", method="GET", path="/"))
        assert is_calm(str(denied.value)), str(denied.value)[:200]
        request = RequestContext(**REQUEST, anonymous=True, headers={}, body_bytes=0)
        with pytest.raises(HookUnavailable) as failed:
            await fails.before(request)
        assert is_calm(str(failed.value)), str(failed.value)[:200]


LEAKS = """
@ext.hook("api.rbac_check")
async def fails(call):
    raise KeyError("row 4711 of customers, password hunter2")
"""


async def test_clients_are_not_told_what_an_error_of_a_guard_says(tmp_path: Path) -> None:
    async with mediation(tmp_path) as plane:
        plane.be_patient()
        await plane.running(installed(tmp_path, "leaky", LEAKS, hooks=[{"point": "api.rbac_check"}]))
        chain = plane.board.point("api.rbac_check").chain
        assert chain is not None
        with pytest.raises(HookUnavailable) as failed:
            await chain.before(RequestContext(**REQUEST, anonymous=True, headers={}, body_bytes=0))
        assert "4711" not in f"{failed.value} {failed.value.args}"
        assert any("4711" in message for _, message in plane.logs), "whoever runs the node finds nothing"


def test_figures_that_no_number_holds_spoil_no_page(tmp_path: Path) -> None:
    registry = MetricsRegistry()
    said: list[tuple[str, str, str]] = []
    figures = ExtensionFigures(registry.scoped("extensions"), lambda _, name: True, lambda *line: said.append(line))
    extension = installed(tmp_path, "demo", "")
    for kind in ("inc", "observe"):
        for value in (1e308, 1e308, -1e308, float("inf"), float("nan"), MAX_VALUE, MAX_VALUE, 2.0):
            figures.take(extension, f"name_{kind}", kind, value)
    _, page = registry.exposition()
    assert b"name_inc" in page
    assert b"inf" not in page.lower().replace(b'le="+inf"', b"")
    assert len(said) == 1


SAYS = """
from magx import Extension

ext = Extension()
DEEP = []
for _ in range(450):
    DEEP = [DEEP]
ANSWERS = {"keys": {(1, 2): 3}, "deep": DEEP, "nan": float("nan"), "control": {"\\x00": "\\x1b]0;owned\\x07"}}


@ext.command("say")
async def say(arguments):
    return ANSWERS[arguments["what"]]
"""


async def test_an_answer_that_json_has_no_words_for_is_the_extensions_failure(passable: Path) -> None:
    async with gate(passable) as node:
        await node.admit_package("sayer", packed(node, SAYS, id="sayer", commands=[{"name": "say", "summary": "says"}]))
        with pytest.raises(MagError) as refused:
            await node.run("sayer", "say", what="keys")
        assert refused.value.code == "MAG-EXT-135"
        assert await node.run("sayer", "say", what="deep")
        assert await node.run("sayer", "say", what="nan") is None
        assert await node.run("sayer", "say", what="control") == {"\x00": "\x1b]0;owned\x07"}
        assert not any("failed" in warning for warning in node.warnings), node.warnings
