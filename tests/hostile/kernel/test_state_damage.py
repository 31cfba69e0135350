"""Damage to the state file: whatever happens to its bytes, what is read is what was written, or it is said that not."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from magmobo.contracts.errors import StateUnavailable
from magmobo.kernel.state import opening
from magmobo.kernel.state.errors import StateDamaged, StateWentBack
from magmobo.kernel.state.manager import StateManager
from magmobo.kernel.state.offline import read_offline

PAGE_BYTES, FRAME_BYTES = 4_096, 4_120
SIZES = (1, 20, 300, 3_000, 12_000)
OWNERS = ("alpha", "beta")
MAX_PLACES = 300  # enough for all there are after 100 writes
Entries = dict[tuple[str, str], tuple[object, int]]
Files = dict[str, bytes]
Mutation = tuple[str, str, bytes | None]
"""What was done, to which file, and its bytes after it; None: it is gone."""


async def entries_of(manager: StateManager) -> Entries:
    return {
        (owner, entry.key): (entry.value, entry.version)
        for owner in OWNERS
        for entry in await manager.scope(owner).entries()
    }


async def written(folder: Path, writes: int) -> tuple[Entries, Files, Files]:
    """Entries of a new store, its files while it is open as a kill would leave them, and after it was closed."""
    chance = random.Random(writes)
    path = folder / "state.db"
    manager = StateManager(path)
    await manager.open()
    for number in range(writes):
        state = manager.scope(OWNERS[number % 2])
        await state.put(f"k{number % 70}", "x" * chance.choice(SIZES) + str(number))
        if number % 13 == 0:
            await state.delete(f"k{(number - 7) % 70}")
    entries = await entries_of(manager)
    live = files_in(folder)
    await manager.close()
    return entries, live, files_in(folder)


def files_in(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def changed(content: bytes, offset: int, piece: bytes) -> bytes:
    return (content[:offset] + piece + content[offset + len(piece) :])[: len(content)]


def mutations(files: Files, chance: random.Random, *, at_random: int) -> Iterator[Mutation]:
    """Bytes of the first header, of each page's and frame's header, then anything anywhere."""
    database = files["state.db"]
    places = [("state.db", offset) for offset in range(100)]
    places += [
        ("state.db", page + offset) for page in range(0, len(database), PAGE_BYTES) for offset in (0, 1, 3, 4, 6, 7)
    ]
    if wal := files.get("state.db-wal"):
        places += [("state.db-wal", offset) for offset in range(32)]
        frames = range(32, len(wal) - FRAME_BYTES, FRAME_BYTES * 61)
        places += [("state.db-wal", frame + offset) for frame in frames for offset in (0, 5, 9, 17, 30, 2_000)]
        places += [("state.db-wal", len(wal) - offset) for offset in (FRAME_BYTES, FRAME_BYTES - 5, 100)]
    for name, offset in chance.sample(places, min(len(places), MAX_PLACES)):
        yield (
            f"byte {offset}",
            name,
            changed(files[name], offset, bytes([files[name][offset] ^ (1 << chance.randrange(8))])),
        )
    names = [name for name in files if name != "state.db-mark"]
    for _ in range(at_random):
        name = chance.choice(names)
        size = len(files[name])
        offset, length = chance.randrange(size), chance.choice((1, 2, 16, 500, 5_000))
        yield f"noise at {offset}", name, changed(files[name], offset, chance.randbytes(length))
        yield f"zeros at {offset}", name, changed(files[name], offset, bytes(length))
        yield f"cut at {offset}", name, files[name][:offset]
        yield "cut at a page", name, files[name][: offset // PAGE_BYTES * PAGE_BYTES]
    for name in names:
        yield "gone", name, None


async def judged(folder: Path, files: Files, mutation: Mutation, truth: Entries) -> str:
    """What a start on the damaged files comes to."""
    what, name, content = mutation
    path = folder / "state.db"
    for kept, kept_content in files.items():
        (folder / kept).write_bytes(kept_content)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    manager = StateManager(path)
    try:
        await manager.open()
    except StateUnavailable as refusal:
        assert path.exists() == (content is not None or name != "state.db")
        return f"refused {refusal.code}"
    found = await entries_of(manager)
    problems = manager.problems
    await manager.scope("alpha").put("works", "again")
    await manager.close()
    if not problems:
        assert found == truth, f"{name}, {what}: wrong values, and nothing was said"
        return "as written"
    aside = [file for file in folder.iterdir() if ".corrupt-" in file.name]
    assert aside or content is None
    if content is not None:
        assert content in [file.read_bytes() for file in aside], f"{name}, {what}: what was damaged is not kept"
    return "reported"


@pytest.mark.parametrize(("writes", "at_random"), [(100, 40), (400, 10)])
@pytest.mark.parametrize("state", ["live", "closed"])
async def test_no_damage_ever_gives_wrong_values_silently(
    tmp_path: Path, writes: int, at_random: int, state: str
) -> None:
    """After 400 writes the log has been merged into the file and begun anew; after 100 everything is in it."""
    entries, live, closed = await written(tmp_path, writes)
    files = live if state == "live" else closed
    results: Counter[str] = Counter()
    work = tmp_path / "work"
    for mutation in mutations(files, random.Random(writes), at_random=at_random):
        work.mkdir()
        results[await judged(work, files, mutation, entries)] += 1
        shutil.rmtree(work)
    assert results["reported"] > 50, results
    assert results["as written"] > 0, "some bytes mean nothing"
    assert results.total() - results["reported"] - results["as written"] <= 10, results


async def test_a_page_that_went_back_to_what_it_was_is_found(tmp_path: Path) -> None:
    """As after a write that a disk acknowledged and lost: the page is sound, and so is every row on it."""
    path = tmp_path / "state.db"
    versions: list[bytes] = []
    for turn in range(2):
        manager = StateManager(path)
        await manager.open()
        await manager.scope("alpha").put_all({f"k{number:02}": [turn, "x" * 900] for number in range(40)})
        await manager.close()
        versions.append(path.read_bytes())
    old, new = versions
    assert len(old) == len(new)
    mark = (tmp_path / "state.db-mark").read_bytes()
    found: Counter[str] = Counter()
    for page in range(0, len(new), PAGE_BYTES):
        folder = tmp_path / str(page)
        folder.mkdir()
        (folder / "state.db").write_bytes(changed(new, page, old[page : page + PAGE_BYTES]))
        (folder / "state.db-mark").write_bytes(mark)
        manager = StateManager(folder / "state.db")
        await manager.open()
        turns = {entry.value[0] for entry in await manager.scope("alpha").entries()}
        await manager.close()
        assert turns == {1} or manager.problems
        found[manager.problems[0][-15:] if manager.problems else "unchanged"] += 1
    assert found["[MAG-STATE-004]"] > 5, found


async def test_an_older_copy_in_its_place_is_used_and_said(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    manager = StateManager(path)
    await manager.open()
    state = manager.scope("alpha")
    await state.put("k", "old")
    await manager.snapshot(tmp_path / "snapshot")
    for _ in range(3):
        await state.put("k", "new")
    await manager.close()
    (tmp_path / "snapshot").replace(path)
    with pytest.raises(StateWentBack) as loss:
        read_offline(path, "alpha", "k")
    assert (loss.value.found_commits, loss.value.acknowledged_commits) == (1, 4)
    heard: list[str] = []
    manager = StateManager(path, heard.append)
    await manager.open()
    assert [problem[-15:] for problem in heard] == ["[MAG-STATE-006]"]
    assert list(manager.problems) == heard
    assert (await manager.scope("alpha").put("k", "newer")).version == 2
    await manager.close()
    manager = StateManager(path)
    await manager.open()
    assert not manager.problems, "it was said once"
    await manager.close()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8_192, b"{}", b"SQLite format 3\0", random.Random(1).randbytes(9_000)]
)
async def test_what_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    for turn in (1, 2):
        path.write_bytes(content)
        with pytest.raises(StateDamaged):
            read_offline(path, "alpha", "k")
        manager = StateManager(path)
        await manager.open()
        assert "[MAG-STATE-004]" in manager.problems[0]
        await manager.scope("alpha").put("k", 1)
        await manager.close()
        aside = [file for file in tmp_path.glob("state.db.corrupt-*") if not file.name.endswith("-mark")]
        assert [file.read_bytes() for file in aside] == [content] * turn


async def test_a_database_of_somebody_else_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table photos (id integer)")
    connection.close()
    before = path.read_bytes()
    manager = StateManager(path)
    await manager.open()
    assert "no state file of MagMoBo" in manager.problems[0]
    await manager.close()
    assert before in [file.read_bytes() for file in tmp_path.glob("state.db.corrupt-*")]


async def test_a_start_that_fails_after_setting_aside_is_told_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"damaged")

    def no_room(path: Path) -> None:
        raise StateUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(opening, "create", no_room)
        with pytest.raises(StateUnavailable):
            await StateManager(path).open()
    manager = StateManager(path)
    await manager.open()
    assert "[MAG-STATE-007]" in manager.problems[0]
    assert "set aside as state.db.corrupt-" in manager.problems[0]
    await manager.close()


async def test_damage_while_it_runs_is_an_error_and_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    manager = StateManager(path)
    await manager.open()
    state = manager.scope("alpha")
    await state.put_all({f"k{n}": "x" * 3_000 for n in range(40)})
    await manager.close()
    manager = StateManager(path)
    await manager.open()
    with path.open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(b"y" * (path.stat().st_size - PAGE_BYTES))
    results = await asyncio.gather(*(manager.scope("alpha").get(f"k{n}") for n in range(40)), return_exceptions=True)
    assert all(isinstance(result, StateDamaged) or getattr(result, "value", "") == "x" * 3_000 for result in results)
    assert any(isinstance(result, StateDamaged) for result in results)
    assert len(manager.problems) <= 2
    await manager.close()
