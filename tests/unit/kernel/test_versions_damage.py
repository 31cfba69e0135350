"""Every file that keeps settings, damaged in every way: the damage is told, costs that file alone, and nothing of what
was kept is taken for something else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from tests.unit.kernel.version_parts import base_of, file_of, folder_in, meta_of, runtime_of

from magmobo.contracts.errors import MagError
from magmobo.kernel.config.errors import (
    RuntimeLost,
    SealKeyDamaged,
    VersionDamaged,
    VersionsUnavailable,
)
from magmobo.kernel.config.sealing import SealBroken, Sealer
from magmobo.kernel.config.source import Runtime
from magmobo.kernel.config.versions import Held, Kept, Snapshot


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """Three versions and something set at run time."""
    versions = folder_in(tmp_path)
    for number in (1, 2, 3):
        await versions.add(meta_of(number), base_of(number), runtime_of(number))
    await versions.keep_runtime(runtime_of(3), Held(1, "digest 3"))
    return tmp_path


def damages(content: bytes) -> list[bytes]:
    """Cut at every length, a bit of every byte turned, something more at the end."""
    cut = [content[:length] for length in range(len(content))]
    turned = [content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :] for at in range(len(content))]
    return [*cut, *turned, content + b"x"]


async def test_a_damaged_version_costs_that_version_alone(data_dir: Path) -> None:
    versions, path = folder_in(data_dir), file_of(data_dir, 2)
    found = damages(path.read_bytes())
    assert len(found) > 800
    for content in found:
        path.write_bytes(content)
        with pytest.raises(VersionDamaged) as caught:
            await versions.snapshot(2)
        assert caught.value.version == 2
        newest, damaged, oldest = await versions.list(9)
        assert (newest.restorable, damaged.restorable, oldest.restorable) == (True, False, True)
        assert (damaged.version, damaged.note) == (2, f"damaged: {caught.value.reason}")
    assert await versions.snapshot(1) == Snapshot(base_of(1), runtime_of(1))
    assert versions.read_runtime() == Kept(runtime_of(3), Held(1, "digest 3"), 3)


def swap(data_dir: Path) -> None:
    file_of(data_dir, 2).write_bytes(file_of(data_dir, 1).read_bytes())


def from_later(data_dir: Path) -> None:
    path = file_of(data_dir, 2)
    path.write_bytes(path.read_bytes().replace(b"version 1 ", b"version 2 ", 1))


def to_folder(data_dir: Path) -> None:
    path = file_of(data_dir, 2)
    path.unlink()
    path.mkdir()


def to_link(data_dir: Path) -> None:
    path = file_of(data_dir, 2)
    path.rename(data_dir / "elsewhere")
    path.symlink_to(data_dir / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (swap, "its file holds version 1"),
        (from_later, "a later version of MagMoBo wrote it"),
        (to_folder, "its file cannot be read (this is no regular file)"),
        (to_link, "its file cannot be read (Too many levels of symbolic links)"),
    ],
)
async def test_another_file_in_the_place_of_a_version(
    data_dir: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(data_dir)
    versions = folder_in(data_dir)
    with pytest.raises(VersionDamaged) as caught:
        await versions.snapshot(2)
    assert caught.value.reason == reason
    assert [version.restorable for version in await versions.list(9)] == [True, False, True]
    assert (await versions.list(9))[1].at, "when the file was written"


async def test_looking_at_what_is_no_file_leaves_nothing_open(data_dir: Path) -> None:
    to_folder(data_dir)
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(20):
        with pytest.raises(VersionDamaged):
            await folder_in(data_dir).snapshot(2)
    assert len([*Path("/proc/self/fd").iterdir()]) <= before + 2


async def test_metadata_that_somebody_rewrote_are_found_when_it_counts(data_dir: Path) -> None:
    """The checksum can be made anew by whoever changes the metadata; the seal cannot."""
    path = file_of(data_dir, 2)
    head, _, rest = path.read_bytes().partition(b"\n")
    rest = rest.replace(b'"actor":"ana"', b'"actor":"eve"')
    path.write_bytes(head[: -len(sha256().hexdigest())] + sha256(rest).hexdigest().encode() + b"\n" + rest)
    with pytest.raises(VersionDamaged, match="its seal is wrong"):
        await folder_in(data_dir).snapshot(2)


async def test_damaged_run_time_settings_are_an_error_with_a_next_step(data_dir: Path) -> None:
    path = data_dir / "config" / "runtime.json"
    whole = path.read_bytes()
    for content in damages(whole.rstrip(b"\n")):
        path.write_bytes(content)
        with pytest.raises(RuntimeLost) as caught:
            folder_in(data_dir).read_runtime()
        assert str(path) in caught.value.next_step()
    path.write_bytes(whole.replace(b"debug", b"error"))
    with pytest.raises(RuntimeLost, match="is not as MagMoBo wrote it"):
        folder_in(data_dir).read_runtime()


async def test_damaged_run_time_settings_are_set_aside_before_others_are_kept(data_dir: Path) -> None:
    path = data_dir / "config" / "runtime.json"
    path.write_text("damaged")
    versions = folder_in(data_dir)
    with pytest.raises(RuntimeLost):
        versions.read_runtime()
    assert versions.last_version() == 3
    await versions.add(meta_of(4), base_of(4), Runtime())
    assert path.read_text() == "damaged", "a start alone forgets nothing"
    for number in (5, 6):
        await versions.keep_runtime(runtime_of(number), None)
    assert folder_in(data_dir).read_runtime() == Kept(runtime_of(6), None, 4)
    assert path.with_suffix(".json.damaged").read_text() == "damaged"


async def test_run_time_settings_that_are_gone_are_an_error_and_the_next_step_works(data_dir: Path) -> None:
    path = data_dir / "config" / "runtime.json"
    path.unlink()
    with pytest.raises(RuntimeLost, match="is gone") as caught:
        folder_in(data_dir).read_runtime()
    assert caught.value.next_step().endswith(f"`echo '{{}}' > {path}`.")
    path.write_text("{}\n")
    assert folder_in(data_dir).read_runtime() == Kept(Runtime(), None, 3)


async def test_without_its_key_no_version_is_restorable_and_new_ones_are(data_dir: Path) -> None:
    (data_dir / "secrets" / "config.key").unlink()
    versions = folder_in(data_dir)
    assert versions.read_runtime().runtime == runtime_of(3), "a start needs no key"
    with pytest.raises(VersionDamaged, match=r"its key, .*config\.key, is gone"):
        await versions.snapshot(3)
    await versions.add(meta_of(4), base_of(4), runtime_of(4))
    found = await versions.list(9)
    assert [version.restorable for version in found] == [True, False, False, False]
    assert found[1].actor == "ana", "what happened is told all the same"
    assert found[1].note.endswith("config.key is not the key it was sealed with")
    assert (await versions.snapshot(4)).base == base_of(4)


async def test_a_damaged_key_is_told_and_not_written_over(data_dir: Path) -> None:
    path = data_dir / "secrets" / "config.key"
    whole = path.read_bytes()
    versions = folder_in(data_dir)
    for content in (b"", whole[:30], b"g" + whole[1:], whole + b"x", whole.upper() + b"x" * 9_000):
        path.write_bytes(content)
        calls = (lambda: versions.snapshot(3), lambda: versions.add(meta_of(4), base_of(4), Runtime()))
        for call in calls:
            with pytest.raises((SealKeyDamaged, VersionsUnavailable)) as caught:
                await call()
            assert str(path) in str(caught.value)
        assert path.read_bytes() == content
    path.write_bytes(b"")
    assert not any(version.restorable for version in await versions.list(9))
    path.write_bytes(whole)
    assert (await versions.snapshot(3)).base == base_of(3)
    assert [version.version for version in await versions.list(9)] == [3, 2, 1]


async def test_a_folder_that_cannot_be_read_is_told(data_dir: Path) -> None:
    (data_dir / "config" / "versions").rename(data_dir / "elsewhere")
    (data_dir / "config" / "versions").write_text("")
    versions = folder_in(data_dir)
    for call in (lambda: versions.list(9), lambda: versions.keep_runtime(Runtime(), None)):
        with pytest.raises(VersionsUnavailable, match="versions: Not a directory"):
            await call()
    with pytest.raises(VersionsUnavailable):
        versions.read_runtime()


def test_a_seal_holds_against_every_bit_and_another_context(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path / "key")
    sealed = sealer.seal(b"hunter2", context=b"version 1")
    assert sealer.open(sealed, context=b"version 1") == b"hunter2"
    assert sealer.seal(b"hunter2", context=b"version 1") != sealed
    for content in damages(sealed):
        with pytest.raises(SealBroken):
            sealer.open(content, context=b"version 1")
    with pytest.raises(SealBroken):
        sealer.open(sealed, context=b"version 2")


@pytest.mark.parametrize(
    "error", [RuntimeLost(Path("x"), "is gone"), SealKeyDamaged(Path("x")), VersionDamaged(1, "y")]
)
def test_the_errors_survive_pickling(error: MagError) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
