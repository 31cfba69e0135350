"""What extensions log is kept, cut and bounded, and nobody hears another's lines."""

from __future__ import annotations

import asyncio
from typing import Any

from magmobo.extensions.journal import (
    FIELD_CHARS,
    FIELDS,
    LINES_KEPT,
    LINES_PER_SECOND,
    MESSAGE_CHARS,
    TRACE_CHARS,
    ExtensionJournal,
)


class NodeLog:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda message, **fields: self.lines.append((level, message, fields))


class Scene:
    def __init__(self) -> None:
        self.now_s, self.log = 1_000.0, NodeLog()
        self.journal = ExtensionJournal(self.log, lambda: self.now_s, lambda text: text.replace("s3cret", "***"))  # type: ignore[arg-type]

    async def lines(self, extension_id: str = "a", after: int = 0, limit: int = 1000) -> list[str]:
        page = await self.journal.read(extension_id, after=after, limit=limit, wait_s=0)
        return [line.message for line in page.lines]


async def test_lines_go_to_their_extension_and_to_the_node() -> None:
    scene = Scene()
    scene.journal.add("a", "warning", "late", {"flight": 7})
    scene.journal.add("b", "info", "other", {})
    assert await scene.lines("a") == ["late"]
    assert await scene.lines("b") == ["other"]
    assert scene.log.lines[0] == ("warning", "late", {"extension": "a", "said": {"flight": "7"}})


async def test_too_many_lines_are_counted() -> None:
    scene = Scene()
    for number in range(LINES_PER_SECOND + 25):
        scene.journal.add("a", "info", str(number), {})
    assert len(await scene.lines()) == LINES_PER_SECOND
    scene.now_s += 1
    scene.journal.add("a", "info", "next", {})
    assert (await scene.lines())[-2:] == [f"25 lines were left out: more than {LINES_PER_SECOND} a second", "next"]


async def test_lines_are_bounded_in_number_and_size() -> None:
    scene = Scene()
    for number in range(LINES_KEPT + 10):
        scene.now_s += 1
        scene.journal.add("a", "info", f"{number} " + "x" * (5000 if number > LINES_KEPT else 500), {})
    lines = await scene.lines()
    assert len(lines) == LINES_KEPT
    assert max(map(len, lines)) == MESSAGE_CHARS
    assert lines[-1].startswith(f"{LINES_KEPT + 9} ")


async def test_secrets_are_hidden_in_text_and_fields() -> None:
    scene = Scene()
    scene.journal.add("a", "info", "key is s3cret", {"s3cret": "s3cret"})
    page = await scene.journal.read("a", after=0, limit=10, wait_s=0)
    assert "s3cret" not in str(page)
    assert "s3cret" not in str(scene.log.lines)


async def test_large_lines_are_fewer() -> None:
    scene = Scene()
    for number in range(400):
        scene.now_s += 1
        scene.journal.add("a", "info", str(number), {str(field): "x" * FIELD_CHARS for field in range(FIELDS)})
    page = await scene.journal.read("a", after=0, limit=1000, wait_s=0)
    assert 90 < len(page.lines) < 100
    assert page.lines[-1].message == "399"
    for _ in range(LINES_KEPT):
        scene.now_s += 1
        scene.journal.add("a", "info", "short", {})
    assert await scene.lines() == ["short"] * LINES_KEPT
    assert scene.journal._pages["a"].chars == len("short") * LINES_KEPT


async def test_a_secret_that_is_cut_is_hidden_too() -> None:
    scene = Scene()
    long = {"key" * 19 + "s3cret": "x" * (FIELD_CHARS - 3) + "s3cret", "trace": "s3cret" + "x" * (TRACE_CHARS - 3)}
    scene.journal.add("a", "info", "x" * (MESSAGE_CHARS - 3) + "s3cret", long)
    line = (await scene.journal.read("a", after=0, limit=10, wait_s=0)).lines[0]
    assert "s3c" not in str(line)
    assert "ret" not in str(line)


async def test_of_a_trace_the_end_is_kept() -> None:
    scene = Scene()
    scene.journal.add("a", "error", "x", {"trace": "first " + "x" * 10_000 + " last", "other": "first " + "x" * 10_000})
    page = await scene.journal.read("a", after=0, limit=10, wait_s=0)
    fields = page.lines[0].fields
    assert (fields["trace"][-5:], len(fields["trace"])) == (" last", TRACE_CHARS)
    assert (fields["other"][:6], len(fields["other"])) == ("first ", FIELD_CHARS)


async def test_who_asks_behind_what_a_former_node_had_begins_anew() -> None:
    scene = Scene()
    scene.journal.add("a", "info", "after the restart", {})
    assert await scene.lines(after=50) == ["after the restart"]


async def test_an_unknown_level_is_info() -> None:
    scene = Scene()
    scene.journal.add("a", "__class__", "x", {})
    assert scene.log.lines[0][0] == "info"


async def test_pages_go_on_behind_the_cursor() -> None:
    scene = Scene()
    for number in range(10):
        scene.journal.add("a", "info", str(number), {})
    newest = await scene.journal.read("a", after=0, limit=3, wait_s=0)
    assert [line.message for line in newest.lines] == ["7", "8", "9"]
    scene.journal.add("a", "info", "10", {})
    assert await scene.lines(after=newest.cursor) == ["10"]


async def test_who_waits_hears_of_the_first_line() -> None:
    scene = Scene()
    async with asyncio.timeout(30):
        waiting = asyncio.create_task(scene.journal.read("a", after=0, limit=10, wait_s=9))
        while not scene.journal._pages.get("a"):
            await asyncio.sleep(0)
        scene.journal.add("a", "info", "first", {})
        assert [line.message for line in (await waiting).lines] == ["first"]
