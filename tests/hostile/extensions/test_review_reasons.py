"""Whatever an extension says of its own end: it comes to rest, on every node, and its secrets are kept nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.extensions.lifecycle_parts import ADMIN, TABLES, Trouble, execute, node_at, package, rows, until
from tests.integration.extensions.mediation import installed, mediation

from magmobo.extensions.lifecycle.errors import EnableFailed
from magmobo.extensions.workers.errors import HandlersDiffer, WorkerStartFailed

SAID = "\x00\x1b]0;owned\x07 the password is hunter, \x00"


@pytest.fixture
def database(dsn: str) -> str:
    execute(dsn, TABLES)
    return dsn


class Shouted(Trouble):
    def __str__(self) -> str:
        return SAID


def kept(database: str) -> tuple[str, str]:
    """State and words of the registry."""
    ((state, *words),) = rows(database, "select state, detail, halt_reason from mag.extension")
    text = " ".join(words)
    assert text.isprintable()
    assert "hunter" not in text
    return state, text


async def test_one_that_does_not_start_goes_back_to_rest(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).lifecycle.install(package(tmp_path / "p"), ADMIN)

        def shout(step: str, about: Any) -> None:
            if step == "worker":
                raise Shouted

        node.world.on_step = shout
        for _ in range(2):
            with pytest.raises(EnableFailed):
                await node.lifecycle.enable("demo", ADMIN)
            state, words = kept(database)
            assert (state, "the password is ***" in words) == ("installed", True)


async def test_one_that_crashes_too_often_is_stopped_on_every_node(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await (await one.trusted()).enabled(package(tmp_path / "p"))
        await two.lifecycle._following.look()
        assert two.in_place() is not None
        worker = one.worker()
        for _ in range(5):
            worker.on_crash(worker.installed, SAID)
        await until(lambda: not one.lifecycle._watching._acting)
        state, words = kept(database)
        assert (state, "ended 5 times" in words) == ("disabled", True)
        await two.lifecycle._following.look()
        assert two.in_place() is None


async def test_an_attempt_to_escape_with_such_words_is_known_to_the_database(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        worker = node.worker()
        worker.on_escape(worker.installed, SAID)
        await until(lambda: not node.lifecycle._watching._acting)
        state, words = kept(database)
        assert (state, "escape attempt" in words) == ("disabled", True)


async def test_what_a_module_says_when_it_does_not_load_is_one_line(tmp_path: Path) -> None:
    async with mediation(tmp_path) as plane:
        with pytest.raises(WorkerStartFailed) as failed:
            await plane.worker(installed(tmp_path, "loud", f"raise RuntimeError({SAID + 'x' * 9000!r})")).start()
        assert str(failed.value).isprintable()
        assert len(str(failed.value)) < 600
        more = 'ext.command("more\\x1b[2J" + "x" * 9000)(lambda arguments: None)'
        with pytest.raises(HandlersDiffer) as differ:
            await plane.worker(installed(tmp_path, "more", more)).start()
        assert str(differ.value).isprintable()
        assert len(str(differ.value)) < 600
