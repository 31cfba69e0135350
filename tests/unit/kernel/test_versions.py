"""The memory of the settings: what is kept comes back, across starts, bounded, and no secret lies in the clear."""

from __future__ import annotations

import asyncio
import os
import stat
from datetime import date, datetime, time
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kernel.version_parts import (
    SECRET,
    base_of,
    file_of,
    folder_in,
    meta_of,
    runtime_of,
)

from magmobo.contracts.secret import Secret
from magmobo.kernel.config.errors import VersionsUnavailable, VersionUnknown
from magmobo.kernel.config.layers import Text
from magmobo.kernel.config.sealing import Sealer
from magmobo.kernel.config.source import Base, Runtime
from magmobo.kernel.config.stored import decode, encode
from magmobo.kernel.config.versions import Held, Kept, Snapshot, Versions


async def fill(data_dir: Path, numbers: range, *, keep: int = 50) -> Versions:
    versions = folder_in(data_dir, keep=keep)
    for number in numbers:
        await versions.add(meta_of(number), base_of(number), runtime_of(number))
    return versions


def test_where_nothing_was_kept_nothing_is_made(tmp_path: Path) -> None:
    assert folder_in(tmp_path).read_runtime() == Kept(Runtime(), None, 0)
    assert [*tmp_path.iterdir()] == []


async def test_a_version_comes_back_whole_in_the_next_life(tmp_path: Path) -> None:
    await fill(tmp_path, range(1, 4))
    versions = folder_in(tmp_path)
    assert versions.read_runtime().last_version == 3
    assert await versions.snapshot(2) == Snapshot(base_of(2), runtime_of(2))


async def test_a_start_sees_whether_a_version_still_counts_without_opening_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(tmp_path, range(1, 3))
    monkeypatch.setattr(Sealer, "open", None)
    versions = folder_in(tmp_path)
    assert await versions.holds(2, base_of(2), runtime_of(2))
    assert not await versions.holds(2, base_of(1), runtime_of(2))
    assert not await versions.holds(2, base_of(2), runtime_of(1))
    assert not await versions.holds(2, base_of(2), Runtime())
    with pytest.raises(VersionUnknown):
        await versions.holds(3, base_of(3), runtime_of(3))


async def test_the_list_is_newest_first_and_tells_what_was_told(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 6))
    found = await versions.list(3)
    assert [version.version for version in found] == [5, 4, 3]
    newest = found[0]
    assert (newest.at, newest.trigger, newest.actor) == ("2026-01-01T00:00:05Z", "file", "ana")
    assert (tuple(newest.changed_keys), newest.note) == (("magds.dsn",), "note 5")
    assert (newest.running, newest.restorable) == (False, True)
    assert len(await versions.list(100)) == 5
    assert await versions.list(0) == []


async def test_what_was_set_at_run_time_comes_back_with_what_is_held(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 3))
    await versions.keep_runtime(runtime_of(7), Held(1, "digest 2"))
    assert folder_in(tmp_path).read_runtime() == Kept(runtime_of(7), Held(1, "digest 2"), 2)
    await versions.keep_runtime(Runtime(), None)
    assert folder_in(tmp_path).read_runtime() == Kept(Runtime(), None, 2)


async def test_the_first_version_keeps_the_settings_it_was_made_with(tmp_path: Path) -> None:
    await fill(tmp_path, range(1, 2))
    assert folder_in(tmp_path).read_runtime().runtime == runtime_of(1)


async def test_a_version_changes_nothing_of_what_is_kept_for_the_next_start(tmp_path: Path) -> None:
    versions = folder_in(tmp_path)
    await versions.keep_runtime(runtime_of(9), None)
    await versions.add(meta_of(1), base_of(1), runtime_of(1))
    assert folder_in(tmp_path).read_runtime().runtime == runtime_of(9)


async def test_the_oldest_go_and_the_held_one_stays(tmp_path: Path) -> None:
    await fill(tmp_path, range(1, 5))
    await folder_in(tmp_path).keep_runtime(Runtime(), Held(2, "digest 4"))
    versions = folder_in(tmp_path, keep=2)
    versions.read_runtime()
    await versions.add(meta_of(5), base_of(5), Runtime())
    assert [version.version for version in await versions.list(9)] == [5, 4, 2]
    with pytest.raises(VersionUnknown) as caught:
        await versions.snapshot(1)
    assert caught.value.version == 1
    await versions.keep_runtime(Runtime(), None)
    await versions.add(meta_of(6), base_of(6), Runtime())
    assert [version.version for version in await versions.list(9)] == [6, 5]


async def test_the_limit_is_asked_each_time(tmp_path: Path) -> None:
    limit = 5
    versions = folder_in(tmp_path)
    versions._keep = lambda: limit
    for number in range(1, 6):
        await versions.add(meta_of(number), base_of(number), Runtime())
    limit = 1
    await versions.add(meta_of(6), base_of(6), Runtime())
    assert [version.version for version in await versions.list(9)] == [6]


@pytest.mark.parametrize("number", [0, 2, 3])
async def test_a_number_is_given_once(tmp_path: Path, number: int) -> None:
    await fill(tmp_path, range(3, 4))
    versions = folder_in(tmp_path)
    with pytest.raises(ValueError, match=f"version {number} after version 3"):
        await versions.add(meta_of(number), base_of(99), Runtime())
    assert (await versions.snapshot(3)).base == base_of(3)


async def test_a_number_is_not_given_again_when_the_files_are_gone(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 8))
    await versions.keep_runtime(Runtime(), None)
    for number in range(1, 8):
        file_of(tmp_path, number).unlink()
    assert folder_in(tmp_path).read_runtime().last_version == 7


async def test_no_file_but_the_sealed_part_holds_a_secret_and_none_is_open_to_others(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 4))
    await versions.keep_runtime(runtime_of(1), Held(1, "digest"))
    paths = list(tmp_path.rglob("*"))
    assert len(paths) == 8
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
        if path.is_file():
            content = path.read_bytes()
            assert SECRET.encode() not in content
            assert b"postgres" not in content


async def test_calls_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 2))
    await asyncio.gather(
        *(versions.keep_runtime(runtime_of(number), Held(1, str(number))) for number in range(8)),
        versions.add(meta_of(2), base_of(2), Runtime()),
        *(versions.list(5) for _ in range(4)),
        *(versions.snapshot(1) for _ in range(4)),
    )
    kept = folder_in(tmp_path).read_runtime()
    assert kept.held is not None
    assert kept.runtime == runtime_of(int(kept.held.digest))
    assert (await versions.snapshot(2)).base == base_of(2)


async def test_what_a_killed_writer_left_goes(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 2))
    left = file_of(tmp_path, 1).with_name(".00000077.sealed.tmp")
    left.write_bytes(b"half")
    assert [version.version for version in await versions.list(9)] == [1]
    await versions.add(meta_of(2), base_of(2), Runtime())
    assert not left.exists()


async def test_what_a_killed_writer_left_is_written_over_whole(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 2))
    left = tmp_path / "config" / ".runtime.json.tmp"
    left.write_bytes(b"x" * 9_000)
    left.chmod(0o644)
    await versions.keep_runtime(runtime_of(1), None)
    assert folder_in(tmp_path).read_runtime() == Kept(runtime_of(1), None, 1)
    assert stat.S_IMODE((tmp_path / "config" / "runtime.json").stat().st_mode) == 0o600


async def test_what_the_system_refuses_is_told_with_the_file_and_changes_nothing(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 2))
    await versions.keep_runtime(runtime_of(1), None)
    (tmp_path / "config" / ".runtime.json.tmp").mkdir()  # nobody can write a file there now, not even root
    (tmp_path / "config" / "versions" / ".00000002.sealed.tmp").mkdir()
    with pytest.raises(VersionsUnavailable, match=r"runtime\.json\.tmp: Is a directory"):
        await versions.keep_runtime(runtime_of(2), Held(1, "x"))
    with pytest.raises(VersionsUnavailable, match=r"00000002\.sealed\.tmp: Is a directory"):
        await versions.add(meta_of(2), base_of(2), Runtime())
    assert folder_in(tmp_path).read_runtime() == Kept(runtime_of(1), None, 1)
    assert [version.version for version in await versions.list(9)] == [1]


async def test_a_pipe_in_the_place_of_a_file_stops_nobody(tmp_path: Path) -> None:
    versions = await fill(tmp_path, range(1, 2))
    (tmp_path / "config" / "runtime.json").unlink()
    os.mkfifo(tmp_path / "config" / "runtime.json")
    with pytest.raises(VersionsUnavailable, match="no regular file"):
        versions.read_runtime()


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.text().map(Text)
    | st.text().map(Secret)
    | st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1).map(Path)
    | st.datetimes()
    | st.dates()
    | st.times()
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def same(value: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same(value[key], other[key]) for key in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(same, value, other))
    return bool(value == other)


@given(st.dictionaries(st.text(), TREES))
def test_a_snapshot_comes_back_of_the_same_types(values: dict[str, Any]) -> None:
    snapshot = Snapshot(Base(values, {"a.b": "x"}, {"a.b": "file"}, "d"), runtime_of(1))
    found = decode(encode(snapshot))
    assert same(found.base.values, values)
    assert (found.base.origins, found.base.layers, found.base.digest) == ({"a.b": "x"}, {"a.b": "file"}, "d")
    assert found.runtime == snapshot.runtime


def test_what_a_layer_gives_is_what_comes_back() -> None:
    values = {
        "a": {"port": Text("8787"), "big": 2**70, "most": inf, "names": ("x", "y"), "": {"": 1}},
        "b": {"at": datetime(2026, 1, 1, 1, 2, 3), "day": date(2026, 1, 1), "time": time(1, 2, 3), "lone": "\udc80"},
    }
    found = decode(encode(Snapshot(Base(values, {}, {}, ""), Runtime()))).base.values
    assert same(found, {**values, "a": {**values["a"], "names": ["x", "y"]}})


def test_a_value_that_no_layer_gives_is_a_defect() -> None:
    with pytest.raises(TypeError, match="of type complex"):
        encode(Snapshot(Base({"a": {"b": 1j}}, {}, {}, ""), Runtime()))


@given(st.binary())
def test_anything_else_is_no_snapshot(content: bytes) -> None:
    with pytest.raises(ValueError, match="no snapshot"):
        decode(content)
