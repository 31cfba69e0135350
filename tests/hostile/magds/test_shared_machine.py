"""A node on a machine with other users: what root makes for the embedded cluster is nobody else's to touch."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from magmobo.components.magds import log_file
from magmobo.components.magds.cluster import _append, _give
from magmobo.components.magds.errors import ClusterDamaged, PlaceRefused, ServerStartFailed
from magmobo.components.magds.log_file import LogFile
from magmobo.components.magds.place import FREE_UIDS, Owner, Records, _claim, check_unshared
from magmobo.components.magds.supervisor import read_runtime


@contextmanager
def umask(mask: int) -> Iterator[None]:
    former = os.umask(mask)
    try:
        yield
    finally:
        os.umask(former)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    made = Records(tmp_path / "data")
    made.create()
    return made


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_whatever_the_umask_says(tmp_path: Path, records: Records, mask: int) -> None:
    """The cluster's own user can pass to its folder; nobody can change, list or lock anything on the way."""
    system_dir = tmp_path / "lib" / "magmobo"
    with umask(mask):
        place = _claim(records, system_dir)

    for folder in (tmp_path / "lib", system_dir, place.home):
        assert mode_of(folder) == 0o711
    assert mode_of(system_dir / ".lock") == 0o600
    assert mode_of(place.home / "owner") == 0o600


def test_a_lock_that_others_could_hold_is_closed_to_them(tmp_path: Path, records: Records) -> None:
    system_dir = tmp_path / "magmobo"
    system_dir.mkdir(mode=0o711)
    (system_dir / ".lock").touch(0o666)

    _claim(records, system_dir)

    assert mode_of(system_dir / ".lock") == 0o600


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path, records: Records) -> None:
    system_dir, target = tmp_path / "magmobo", tmp_path / "precious"
    system_dir.mkdir(mode=0o711)
    target.write_text("kept")
    (system_dir / ".lock").symlink_to(target)

    with pytest.raises(PlaceRefused):
        _claim(records, system_dir)

    assert target.read_text() == "kept"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o773, 0o731])
def test_a_folder_that_others_may_write_to_gets_no_cluster(tmp_path: Path, records: Records, mode: int) -> None:
    system_dir = tmp_path / "magmobo"
    system_dir.mkdir()
    system_dir.chmod(mode)
    with pytest.raises(PlaceRefused, match="others"):
        _claim(records, system_dir)
    assert not list(system_dir.iterdir())


def test_nor_does_one_whose_parent_others_may_exchange(tmp_path: Path) -> None:
    inner = tmp_path / "shared" / "magmobo"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o777)
    with pytest.raises(PlaceRefused):
        check_unshared(inner)
    inner.parent.chmod(0o1777)  # as /tmp is: nobody renames there what is another's
    check_unshared(inner)


@pytest.mark.parametrize("text", ["", "\n", "not a number\n", "-5\n"])
def test_a_damaged_record_of_another_cluster_stops_nobody(tmp_path: Path, records: Records, text: str) -> None:
    system_dir = tmp_path / "magmobo"
    (system_dir / "other").mkdir(parents=True, mode=0o711)
    (system_dir / "other" / "owner").write_text(text)

    place = _claim(records, system_dir)

    assert place.owner is not None
    assert place.owner.uid in FREE_UIDS


def test_a_link_in_place_of_the_settings_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / "postgresql.conf").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        _append(tmp_path / "postgresql.conf", "archive_command = 'anything'")
    assert target.read_text() == "kept"


def test_a_file_with_a_second_name_is_given_to_nobody(tmp_path: Path) -> None:
    """A hard link planted while initdb runs would turn our chown onto somebody's file."""
    tree, precious = tmp_path / "tree", tmp_path / "precious"
    (tree / "base").mkdir(parents=True)
    precious.write_text("kept")
    os.link(precious, tree / "base" / "planted")
    me = Owner(os.geteuid(), os.getegid())

    with pytest.raises(ServerStartFailed, match="planted"):
        _give(tree, me)
    (tree / "base" / "planted").unlink()
    _give(tree, me)


def test_the_older_log_is_as_private_as_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", 10)
    with umask(0):
        log = LogFile(tmp_path / "postgres.log")
        with log.open() as file:
            file.write(b"a statement with somebody's values\n")
        log.trim()

    assert mode_of(tmp_path / "postgres.log.1") == 0o600
    assert mode_of(tmp_path / "postgres.log") == 0o600


@pytest.mark.parametrize("content", [b"\xff", b'{"home":"\xff"}', b"", b"[" * 100_000, b"null"], ids=repr)
def test_records_that_are_not_ours_to_read_are_damage(records: Records, content: bytes) -> None:
    for name in ("place.json", "passwords.json"):
        (records.folder / name).write_bytes(content)
    records.runtime.write_bytes(content)

    with pytest.raises(ClusterDamaged):
        records.place()
    with pytest.raises(ClusterDamaged):
        records.passwords(create=True)
    assert read_runtime(records.runtime) is None
