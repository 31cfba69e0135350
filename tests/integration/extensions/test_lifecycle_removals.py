"""Uninstalled with its data, an extension leaves files on no node: not on those that hear of it, nor on those that were
down or died in the middle. Two real nodes on one database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hostile.extensions.test_review_leftovers import DEPTH, nest
from tests.integration.extensions.lifecycle_parts import (
    ADMIN,
    TABLES,
    Node,
    execute,
    node_at,
    package,
    rows,
    until,
)

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import DatabaseSchemaChanged
from magmobo.extensions.lifecycle import removals, store
from magmobo.extensions.lifecycle.leftovers import remove_tree


@pytest.fixture
def database(dsn: str) -> str:
    execute(dsn, TABLES)
    return dsn


def data_on_disk(node: Node) -> list[str]:
    folder = node.root / "data"
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


async def both_run(one: Node, two: Node, data: bytes) -> None:
    await (await one.trusted()).enabled(data)
    two.lifecycle._core.ports.bus.emit(DatabaseSchemaChanged("notify"))
    await until(lambda: two.in_place() is not None)
    assert data_on_disk(one) == data_on_disk(two) != []


async def removed(node: Node, extension_id: str = "demo") -> None:
    await node.lifecycle.disable(extension_id, ADMIN)
    await node.lifecycle.uninstall(extension_id, True, ADMIN)


async def said(node: Node) -> list[tuple[str, str]]:
    return [(one["extension"], one["what"]) for one in await node.records("extension.lifecycle")]


@pytest.fixture
def database_and_deep(database: str, tmp_path: Path) -> Iterator[str]:
    """A test that fails leaves no folder behind that is too deep for others to remove."""
    yield database
    remove_tree(tmp_path)


async def test_other_nodes_remove_their_files_and_say_so(database_and_deep: str, tmp_path: Path) -> None:
    database = database_and_deep
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await both_run(one, two, package(tmp_path / "p"))
        folder = two.worker().data_dir
        nest(folder, DEPTH)
        outside = tmp_path / "outside"
        outside.write_text("ours")
        (folder / "to").symlink_to(outside)
        (folder / "closed").mkdir(mode=0)
        await removed(one)
        assert data_on_disk(one) == [], "the node that is asked answers when its own files are gone"
        await until(lambda: data_on_disk(two) == [] and two.versions_on_disk() == set())
        assert outside.read_text() == "ours"
        assert {worker.state for worker in two.world.workers} <= {"drained", "killed"}
        await until(lambda: two.forgotten == ["demo"])
        for node in (one, two):
            await node.lifecycle._core.removals.settled()
            assert await said(node) == [("demo", removals.REMOVING)]
        assert one.forgotten == ["demo"]


async def test_kept_data_stays_on_every_node(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await both_run(one, two, package(tmp_path / "p"))
        await one.lifecycle.disable("demo", ADMIN)
        await one.lifecycle.uninstall("demo", False, ADMIN)
        await until(lambda: two.forgotten == ["demo"])
        await two.lifecycle._core.removals.settled()
        assert data_on_disk(one) == data_on_disk(two) != []


async def test_one_that_was_down_removes_its_files_when_it_starts(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path / "one") as one:
        async with node_at(database, tmp_path / "two") as two:
            await both_run(one, two, package(tmp_path / "p"))
        await removed(one)
        # The same name again: other files, which nobody may take for those.
        await one.enabled(package(tmp_path / "p"))
        assert len(data_on_disk(two)) == 1
        gone = data_on_disk(two)
        async with node_at(database, tmp_path / "two") as two:
            await until(lambda: two.in_place() is not None and not set(gone) & set(data_on_disk(two)))
            await two.lifecycle._core.removals.settled()
            assert data_on_disk(two) == data_on_disk(one)
            assert await said(two) == [("demo", removals.REMOVING)]
        async with node_at(database, tmp_path / "two") as two:
            await until(lambda: two.in_place() is not None)
            await two.lifecycle._core.removals.settled()
            assert await said(two) == [("demo", removals.REMOVING)], "what is gone is not said again"


async def test_one_whose_extensions_are_switched_off_removes_them_at_its_start(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path / "one") as one:
        async with node_at(database, tmp_path / "two") as two:
            await both_run(one, two, package(tmp_path / "p"))
        await removed(one)
    async with node_at(database, tmp_path / "two", start=False) as two:
        await two.lifecycle.read()
        await two.lifecycle._core.removals.settled()
        assert (data_on_disk(two), two.versions_on_disk()) == ([], set())


async def test_another_installation_of_the_name_begins_anew_where_it_still_ran(database: str, tmp_path: Path) -> None:
    """Removed and installed again between two looks of the other node: the same version, other files."""
    data = package(tmp_path / "p")
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await both_run(one, two, data)
        old = two.worker()
        async with two.lifecycle._core.turn:  # it looks at nothing meanwhile
            await removed(one)
            await one.enabled(data)
        await until(lambda: two.in_place() is not None and two.worker() is not old)
        await until(lambda: data_on_disk(two) == data_on_disk(one))
        assert (old.state, two.forgotten) == ("killed", ["demo"])


async def test_files_that_cannot_be_removed_are_tried_again_and_said_once(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removals, "TRY_AGAIN_S", (0.01,))
    stuck, tries = True, 0

    def remove(folder: Path) -> None:
        nonlocal tries
        tries += 1
        if stuck:
            raise OSError(5, os.strerror(5))
        remove_tree(folder)

    monkeypatch.setattr(removals, "remove_tree", remove)
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "p"))
        await removed(node)
        assert (await node.lifecycle.list()).extensions == [], "it is gone though a file is stuck"
        await until(lambda: tries >= 4)
        assert await said(node) == [("demo", removals.REMOVING), ("demo", removals.STAYS)]
        stuck = False
        await until(lambda: data_on_disk(node) == [])


async def test_a_database_that_is_away_is_asked_again(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removals, "TRY_AGAIN_S", (0.01,))
    async with node_at(database, tmp_path / "one") as one, node_at(database, tmp_path / "two") as two:
        await both_run(one, two, package(tmp_path / "p"))
        ask, asked = two.lifecycle._core.store.gone, 0

        async def away(*, behind: int) -> Any:
            nonlocal asked
            asked += 1
            if asked < 3:
                raise Unavailable("the database")
            return await ask(behind=behind)

        monkeypatch.setattr(two.lifecycle._core.store, "gone", away)
        await removed(one)
        await until(lambda: data_on_disk(two) == [])


async def test_what_is_remembered_is_bounded(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "GONE_KEPT", 2)
    async with node_at(database, tmp_path) as node:
        await node.trusted()
        for _ in range(4):
            await node.lifecycle.install(package(tmp_path / "p"), ADMIN)
            await node.lifecycle.uninstall("demo", True, ADMIN)
        assert rows(database, "select count(*), min(number) from mag.extension_gone") == [(2, 3)]


async def test_a_node_that_stops_in_the_middle_goes_on_later(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_at(database, tmp_path / "one") as one:
        async with node_at(database, tmp_path / "two") as two:
            await both_run(one, two, package(tmp_path / "p"))
            noted = asyncio.Event()

            async def hold(*_: Any, **__: Any) -> None:
                noted.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(two.lifecycle._core.removals, "_note", hold)
            await removed(one)
            await noted.wait()
        assert data_on_disk(two) != []
        async with node_at(database, tmp_path / "two") as two:
            await two.lifecycle._core.removals.settled()
            assert data_on_disk(two) == []
