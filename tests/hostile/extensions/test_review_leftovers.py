"""Nothing that a worker leaves in its folder keeps an extension from being removed, or leads out of that folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.extensions.lifecycle_parts import ADMIN, READ, TABLES, execute, node_at, package

from magmobo.extensions.lifecycle import leftovers
from magmobo.extensions.lifecycle.leftovers import remove_tree

DEPTH = 3000


def nest(folder: Path, depth: int) -> None:
    """Folders in each other, deeper than a path may say or a program may recurse."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=inner))
        os.mkdir("a", dir_fd=inner)
        below = os.open("a", os.O_RDONLY | os.O_DIRECTORY, dir_fd=inner)
        os.close(inner)
        inner = below
    os.close(inner)


@pytest.fixture(autouse=True)
def emptied(tmp_path: Path) -> Iterator[None]:
    """Such folders are too deep for pytest: one that a test left when it failed would fail every later session."""
    yield
    subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """What must stay."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("ours")
    return kept


def test_a_folder_deeper_than_any_path_goes(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    nest(folder, DEPTH)
    remove_tree(folder)
    assert not folder.exists()
    remove_tree(folder)


def test_links_are_removed_and_not_followed(tmp_path: Path, kept: Path) -> None:
    folder = tmp_path / "links"
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "to").symlink_to(kept)
    (folder / "closed" / "to").symlink_to(kept)
    (folder / "closed" / "file").hardlink_to(kept / "file")
    os.mkfifo(folder / "closed" / "inner" / "pipe")
    (folder / "closed").chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    (tmp_path / "alias").symlink_to(kept)
    remove_tree(tmp_path / "alias")
    assert not (tmp_path / "alias").is_symlink()
    assert (kept / "file").read_text() == "ours"


@pytest.mark.parametrize("depth", [1, 2])
def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """As a worker that is being ended could do it, between the look at a folder and what follows from it."""
    folder = tmp_path / "changing"
    inner = folder.joinpath(*["inner"] * (depth - 1))
    inner.mkdir(parents=True)
    (inner / "to").symlink_to(kept)
    kept.chmod(0o755)
    with monkeypatch.context() as looked_before:
        looked_before.setattr(leftovers.stat, "S_ISDIR", lambda mode: True)
        with pytest.raises(OSError, match="to"):
            remove_tree(folder)
    assert kept.stat().st_mode & 0o777 == 0o755
    remove_tree(folder)
    assert not folder.exists()
    assert (kept / "file").read_text() == "ours"


async def test_an_extension_with_such_a_folder_is_removed_and_comes_back(dsn: str, tmp_path: Path) -> None:
    execute(dsn, TABLES)
    data = package(tmp_path / "a", capabilities=[READ])
    async with node_at(dsn, tmp_path) as node:
        await (await node.trusted()).enabled(data)
        folder = node.worker().data_dir
        nest(folder, DEPTH)
        nest(folder.with_name("demo.before"), DEPTH)
        await node.lifecycle.disable("demo", ADMIN)
        await node.lifecycle.enable("demo", ADMIN)
        assert [one.name for one in folder.parent.iterdir()] == [folder.name], "what was another's went"
        await node.lifecycle.disable("demo", ADMIN)
        await node.lifecycle.uninstall("demo", True, ADMIN)
        assert list(folder.parent.iterdir()) == []
        assert (await node.lifecycle.list()).extensions == []
