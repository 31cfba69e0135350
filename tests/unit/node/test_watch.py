"""What counts as a change of a file, one look after the other; and a watch that nothing ends."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from magmobo.node import watch
from magmobo.node.watch import FileWatch, Looks

DEADLINE_S = 60


def files_in(folder: Path) -> Callable[[], Iterable[Path]]:
    return lambda: [folder / "mag.toml", *(folder / "mag.d").glob("*.toml")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mag.d").mkdir()
    (tmp_path / "mag.toml").write_text("one")
    return tmp_path


@pytest.fixture
def looks(folder: Path) -> Looks:
    made = Looks(files_in(folder))
    made.note()
    assert (made.look(), made.look()) == (False, False)
    return made


def told(looks: Looks) -> bool:
    """After a change: not at the first look, at the second, and never again."""
    assert not looks.look(), "it has not rested yet"
    found = looks.look()
    assert not looks.look()
    return found


def by_writing(path: Path) -> None:
    path.write_text("two!")


def by_the_same_length_and_time(path: Path) -> None:
    before = path.stat()
    beside = path.with_name("beside")
    beside.write_text("two")
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.rename(path)


def by_removing(path: Path) -> None:
    path.unlink()


def by_adding_another(path: Path) -> None:
    (path.parent / "mag.d" / "x.toml").write_text("")


def by_writing_with_the_same_length_and_time(path: Path) -> None:
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of files is coarse
        path.write_text("two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_linking(path: Path) -> None:
    path.with_name("target").write_text("two")
    path.unlink()
    path.symlink_to("target")


def by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "change",
    [
        by_writing,
        by_writing_with_the_same_length_and_time,
        by_the_same_length_and_time,
        by_removing,
        by_adding_another,
        by_linking,
        by_a_folder,
    ],
)
def test_a_change_is_told_once_it_rests(folder: Path, looks: Looks, change: Callable[[Path], None]) -> None:
    change(folder / "mag.toml")
    assert told(looks)


def test_a_file_that_is_still_being_written_is_not_told(folder: Path, looks: Looks) -> None:
    for length in range(1, 6):
        (folder / "mag.toml").write_text("x" * length * 10)
        assert not looks.look()
    assert looks.look()


def test_a_change_that_is_taken_back_by_renaming_is_none(folder: Path, looks: Looks) -> None:
    (folder / "mag.d" / "x.toml").write_text("")
    assert not looks.look()
    (folder / "mag.d" / "x.toml").unlink()
    assert [looks.look() for _ in range(3)] == [False] * 3


def test_a_swapped_folder_behind_links_is_told(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: file -> ..data/file, ..data -> a folder with a time in its name."""
    for name in ("..one", "..two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mag.toml").write_text("same")
        os.utime(tmp_path / name / "mag.toml", ns=(7, 7))
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "mag.toml").symlink_to("..data/mag.toml")
    looks = Looks(lambda: [tmp_path / "mag.toml"])
    looks.note()
    (tmp_path / "..next").symlink_to("..two")
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert told(looks)


def test_a_file_that_goes_and_comes_back_is_told_twice(folder: Path, looks: Looks) -> None:
    (folder / "mag.d" / "x.toml").write_text("")
    assert told(looks)
    (folder / "mag.d" / "x.toml").unlink()
    assert told(looks)
    (folder / "mag.d" / "x.toml").write_text("")
    assert told(looks)


def test_names_that_come_and_go_do_not_pile_up(folder: Path, looks: Looks) -> None:
    for number in range(20):
        path = folder / "mag.d" / f"{number}.toml"
        path.write_text("")
        assert told(looks)
        path.unlink()
        assert told(looks)
    assert len(looks._known) == 1


def test_what_cannot_be_looked_at_is_told_when_it_can_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "mag.toml"
    looks = Looks(lambda: [path])
    looks.note()
    path.parent.symlink_to("folder")  # a circle: nobody can look through it
    assert told(looks)
    path.parent.unlink()
    assert told(looks)


def test_what_more_is_watched_is_no_news_once_it_is_noted(folder: Path, tmp_path: Path) -> None:
    more: list[Path] = []
    looks = Looks(lambda: [folder / "mag.toml", *more])
    looks.note()
    more.append(folder / "key")
    more[0].write_text("")
    looks.note()
    assert not looks.look()
    assert not looks.look()
    (folder / "mag.toml").write_text("changed")
    looks.note()
    assert told(looks), "a note hides no change of what was known"
    more.clear()
    assert [looks.look() for _ in range(3)] == [False] * 3, "what is watched no more is no news either"


def test_what_changed_before_the_looked_often_is_told(folder: Path) -> None:
    looks = Looks(files_in(folder))
    looks.note()
    (folder / "mag.toml").write_text("changed")
    assert told(looks)


class Programs(RuleBasedStateMachine):
    """Whatever is done to files between looks: who reads at each True, and at the beginning, has read everything that
    is there after two quiet looks.
    """

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.room = tempfile.TemporaryDirectory()
        self.folder = Path(self.room.name)
        (self.folder / "mag.d").mkdir()
        self.looks, self.ticks = Looks(files_in(self.folder)), 1
        self.looks.note()
        self.read = self.now()

    def now(self) -> dict[str, str]:
        return {str(path): path.read_text() for path in files_in(self.folder)() if path.exists()}

    def path(self, name: str) -> Path:
        return self.folder / ("mag.toml" if name == "main" else f"mag.d/{name}.toml")

    @rule(name=st.sampled_from(["main", "a", "b"]), text=st.sampled_from(["x", "y", "long"]))
    def write(self, name: str, text: str) -> None:
        self.path(name).write_text(text)
        self.ticks += 1  # the clock of files is coarser than this test
        os.utime(self.path(name), ns=(self.ticks, self.ticks))

    @rule(name=st.sampled_from(["main", "a", "b"]), text=st.sampled_from(["x", "y"]))
    def put_in_place(self, name: str, text: str) -> None:
        beside = self.folder / "beside"
        beside.write_text(text)
        self.ticks += 1
        os.utime(beside, ns=(self.ticks, self.ticks))
        beside.rename(self.path(name))

    @rule(name=st.sampled_from(["main", "a", "b"]))
    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    @rule()
    def look(self) -> None:
        if self.looks.look():
            self.read = self.now()

    @rule()
    def rest(self) -> None:
        if self.looks.look() | self.looks.look():
            self.read = self.now()
        assert self.read == self.now()
        assert not self.looks.look()

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "looks"):
            assert len(self.looks._known) <= 3

    def teardown(self) -> None:
        if hasattr(self, "room"):
            self.room.cleanup()


Programs.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestPrograms = Programs.TestCase


class Watched:
    """A watch that runs, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.is_on, self.interval_s = folder, True, 0.02
        self.told = asyncio.Queue[str]()
        self.errors: list[BaseException] = []
        self.files: Callable[[], Iterable[Path]] = files_in(folder)
        self.watch = FileWatch(
            lambda: self.files(), self.changed, interval_s=lambda: self.interval_s, is_on=lambda: self.is_on
        )

    async def changed(self) -> None:
        self.told.put_nowait((self.folder / "mag.toml").read_text())
        if self.errors:
            raise self.errors.pop()

    async def hears(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            assert await self.told.get() == text

    def write(self, text: str) -> None:
        (self.folder / "mag.toml").write_text(text)


@pytest.fixture
async def watched(folder: Path) -> Iterable[Watched]:
    made = Watched(folder)
    made.watch.note()
    task = asyncio.create_task(made.watch.run())
    yield made
    assert not task.done(), "it never ends by itself"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_tells_each_change(watched: Watched) -> None:
    for text in ("two", "three", ""):
        watched.write(text)
        await watched.hears(text)


@pytest.mark.parametrize(
    "error", [ValueError("no"), OSError("no"), asyncio.CancelledError(), ExceptionGroup("", [KeyError()])]
)
async def test_no_error_of_who_is_told_ends_it(watched: Watched, error: BaseException) -> None:
    watched.errors.append(error)
    with structlog.testing.capture_logs() as lines:
        watched.write("two")
        await watched.hears("two")
        watched.write("three")
        await watched.hears("three")
    assert [line["log_level"] for line in lines] == ["warning"]


async def test_no_error_of_the_files_ends_it_and_it_is_said_once(watched: Watched) -> None:
    looks_failed = asyncio.Queue[None]()
    loop = asyncio.get_running_loop()

    def fail() -> Iterable[Path]:
        loop.call_soon_threadsafe(looks_failed.put_nowait, None)
        raise OSError("stale handle")

    with structlog.testing.capture_logs() as lines:
        watched.files = fail
        for _ in range(4):
            await asyncio.wait_for(looks_failed.get(), DEADLINE_S)
        watched.files = files_in(watched.folder)
        watched.write("two")
        await watched.hears("two")
    assert [line["error"] for line in lines] == ["OSError: stale handle"]


async def test_what_lies_there_at_the_beginning_is_no_news(folder: Path) -> None:
    made, looked_often, rounds = Watched(folder), asyncio.Event(), 0

    def is_on() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds > 4:
            looked_often.set()
        return True

    made.watch._is_on = is_on
    task = asyncio.create_task(made.watch.run())
    await asyncio.wait_for(looked_often.wait(), DEADLINE_S)
    assert made.told.empty()
    made.write("two")
    await made.hears("two")
    task.cancel()


async def test_off_it_does_not_look_and_on_it_tells_what_changed(watched: Watched) -> None:
    looked: list[None] = []
    polls, off = iter(range(6)), asyncio.Event()

    def files() -> Iterable[Path]:
        looked.append(None)
        return files_in(watched.folder)()

    def is_on() -> bool:
        if next(polls, None) is None:
            off.set()
        return watched.is_on

    watched.is_on = False
    watched.write("two")
    watched.files = files
    watched.watch._is_on = is_on
    await asyncio.wait_for(off.wait(), DEADLINE_S)
    assert looked == []
    watched.is_on = True
    await watched.hears("two")


async def test_a_shorter_pause_counts_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SLICE_S", 0.02)
    made = Watched(folder)
    made.interval_s = 3_600.0
    made.watch.note()
    task = asyncio.create_task(made.watch.run())
    made.write("two")
    await asyncio.sleep(0)
    made.interval_s = 0.02
    await made.hears("two")
    task.cancel()


async def test_it_ends_while_who_is_told_waits(folder: Path) -> None:
    made, waiting = Watched(folder), asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    watch = FileWatch(files_in(folder), wait, interval_s=lambda: 0.02, is_on=lambda: True)
    watch.note()
    task = asyncio.create_task(watch.run())
    made.write("two")
    await asyncio.wait_for(waiting.wait(), DEADLINE_S)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=DEADLINE_S)
    assert [task.cancelled() for task in done] == [True]


def test_a_note_of_files_that_cannot_be_listed_raises_nothing(folder: Path) -> None:
    def fail() -> Iterable[Path]:
        raise OSError("stale handle")

    async def never() -> None:
        raise AssertionError

    with structlog.testing.capture_logs() as lines:
        FileWatch(fail, never, interval_s=lambda: 1.0, is_on=lambda: True).note()
    assert len(lines) == 1
