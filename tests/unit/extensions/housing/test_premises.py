"""Where files of extensions lie when the node is root: reached by workers, found again, never mixed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from magmobo.contracts.folders import exchangeable_at
from magmobo.extensions import premises
from magmobo.extensions.premises import Premises
from magmobo.extensions.sandbox.errors import PremisesRefused

VERSION = "versions/" + "0" * 64
OTHER_FILE_SYSTEM = Path("/dev/shm")


@pytest.fixture
def machine() -> Iterator[Path]:
    """A folder that everybody may pass."""
    folder = Path(tempfile.mkdtemp(prefix="mag-premises-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class Host:
    """A node of root on this machine, with its ordinary data folder."""

    def __init__(self, data_dir: Path, system_dir: Path) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data_dir, self.system_dir = data_dir, system_dir

    def premises(self) -> Premises:
        """As after a start."""
        return Premises(self.data_dir, lambda: str(self.system_dir), structlog.stdlib.get_logger())

    def root(self) -> Path:
        """What root gets, whoever runs the tests."""
        return self.premises()._of_root()

    def before(self, *files: str) -> None:
        """Files that a node of an earlier version left in the data folder."""
        for file in files:
            path = self.data_dir / "extensions" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("kept")


@pytest.fixture
def host(machine: Path) -> Host:
    return Host(machine / "data", machine / "lib" / "magmobo")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_each_folder_on_the_way_lets_others_pass_and_nothing_else(host: Host, mask: int) -> None:
    former = os.umask(mask)
    try:
        root = host.root()
    finally:
        os.umask(former)
    assert root.parent == host.system_dir
    for folder in (host.system_dir.parent, host.system_dir, root, root / "versions", root / "data"):
        assert mode_of(folder) == 0o711
    assert mode_of(root / "owner") == 0o600
    assert mode_of(host.data_dir / "extensions") == 0o700


def test_it_is_found_again_and_is_nobody_else_s(host: Host, machine: Path) -> None:
    root, other = host.root(), Host(machine / "other", host.system_dir).root()
    (root / "data" / "demo.1").mkdir()
    assert host.root() == root != other
    assert (root / "data" / "demo.1").is_dir()
    assert (root / "owner").read_text().strip() == str(host.data_dir / "extensions")


def test_looking_makes_nothing(host: Host) -> None:
    assert not host.premises().known().exists()
    host.premises().look()
    assert not host.system_dir.exists()
    assert not any(host.data_dir.iterdir())


def test_a_plain_user_keeps_all_in_the_data_folder(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    premises = host.premises()
    assert premises.root() == premises.known() == host.data_dir / "extensions"
    assert premises.look().ok
    assert not host.system_dir.exists()


# ------------------------------------------------------------ others on the machine


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o773, 0o731])
def test_a_folder_that_others_may_write_to_is_refused(host: Host, mode: int) -> None:
    host.system_dir.mkdir(parents=True)
    host.system_dir.chmod(mode)
    with pytest.raises(PremisesRefused, match="write to"):
        host.root()
    assert not any(host.system_dir.iterdir())
    assert not any(host.data_dir.iterdir())


def test_so_is_one_whose_parent_others_may_exchange(host: Host) -> None:
    host.system_dir.parent.mkdir()
    host.system_dir.parent.chmod(0o777)
    with pytest.raises(PremisesRefused, match=str(host.system_dir.parent)):
        host.root()
    assert not host.system_dir.exists(), "whoever could exchange it could have had a link there when its mode was set"
    host.system_dir.parent.chmod(0o1777)
    assert host.root()


def test_so_is_one_behind_a_folder_that_others_may_not_pass(host: Host) -> None:
    host.system_dir.parent.mkdir(mode=0o700)
    with pytest.raises(PremisesRefused, match=f"not pass {host.system_dir.parent}"):
        host.root()
    assert not any(host.system_dir.iterdir())


def test_a_link_of_somebody_else_leads_nowhere(host: Host, machine: Path) -> None:
    (machine / "theirs").mkdir()
    (machine / "theirs").chmod(0o777)
    host.system_dir.parent.mkdir()
    host.system_dir.symlink_to(machine / "theirs")
    with pytest.raises(PremisesRefused, match="write to"):
        host.root()
    assert not any((machine / "theirs").iterdir())


def test_what_is_refused_is_what_the_doctor_says(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def exchangeable(place: Path) -> Path | None:
        with monkeypatch.context() as ourselves:  # the folders of this test are not root's where we are not
            ourselves.setattr(os, "geteuid", os.getuid)
            return exchangeable_at(place)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(premises, "exchangeable_at", exchangeable)
    owner = host.system_dir.parent
    owner.mkdir(mode=0o700)
    line = host.premises().look()
    assert (line.ok, str(owner) in line.detail) == (False, True)
    assert "extensions.system_dir" in line.remedy
    owner.chmod(0o777)
    assert "write to" in host.premises().look().detail
    owner.chmod(0o1777)
    assert host.premises().look().ok, "it is not there yet, and nobody else can put it there once it is"
    owner.chmod(0o711)
    assert host.premises().look().ok


# ------------------------------------------------------------ folders that move


@pytest.mark.parametrize("text", ["../../etc", "", "x" * 12, "0123456789ab/..", "é" * 6])
def test_a_record_that_is_not_ours_is_not_followed(host: Host, text: str) -> None:
    host.before("home")
    (host.data_dir / "extensions" / "home").write_text(text)
    if text:
        with pytest.raises(PremisesRefused, match="names no folder"):
            host.root()
    else:
        assert host.root().parent == host.system_dir


def test_a_folder_that_is_gone_is_made_anew_under_its_name(host: Host) -> None:
    """A container that was made anew kept its data folder and nothing else."""
    root = host.root()
    shutil.rmtree(host.system_dir)
    assert host.root() == root
    assert (root / "data").is_dir()


def test_a_moved_data_folder_finds_its_files(host: Host, machine: Path) -> None:
    root = host.root()
    host.data_dir.rename(machine / "moved")
    assert Host(machine / "moved", host.system_dir).root() == root
    assert (root / "owner").read_text().strip() == str(machine / "moved" / "extensions")


def test_a_copied_data_folder_gets_files_of_its_own(host: Host, machine: Path) -> None:
    root = host.root()
    shutil.copytree(host.data_dir, machine / "copy")
    copy = Host(machine / "copy", host.system_dir)
    assert copy.root() != root
    assert copy.root() == copy.root()
    assert host.root() == root


# ------------------------------------------------------------ files from before


def test_files_in_the_data_folder_are_moved_as_they_are(host: Host) -> None:
    host.before("data/demo.1/diary", f"{VERSION}/extension.py")
    (host.data_dir / "extensions" / "data" / "unused.2").mkdir()
    root = host.root()
    assert (root / "data" / "demo.1" / "diary").read_text() == "kept"
    assert mode_of(root / "data") == 0o711
    assert sorted(one.name for one in (root / "data").iterdir()) == ["demo.1"], "what never was used is not moved"
    assert not (host.data_dir / "extensions" / "data").exists()
    assert not (host.data_dir / "extensions" / VERSION).exists(), "code is unpacked anew"
    assert host.root() == root


def test_a_move_that_was_broken_off_is_ended(host: Host) -> None:
    root = host.root()
    host.before("data/demo.1/diary")
    assert host.root() == root
    assert (root / "data" / "demo.1" / "diary").read_text() == "kept"


def test_files_at_both_places_are_left_for_somebody_to_decide(host: Host) -> None:
    (host.root() / "data" / "demo.1").mkdir()
    host.before("data/demo.1/diary")
    with pytest.raises(PremisesRefused, match="too; remove those of one of them"):
        host.root()
    assert (host.data_dir / "extensions" / "data" / "demo.1" / "diary").read_text() == "kept"


def test_a_folder_that_is_moved_is_root_s_and_open_before(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user may have run this node, who could exchange folders else; and a kill may come behind the move."""
    host.before("data/demo.1/diary")
    old = host.data_dir / "extensions" / "data"
    old.chmod(0o700)
    owners: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "chown", lambda *about: owners.append(about))
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        host.root()
    assert mode_of(old) == 0o711
    assert owners == [(old, os.geteuid(), os.getegid())]


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_tries_in_vain_leave_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node tries again for as long as its data folder is full."""
    writing = premises._write
    full = host.data_dir / "extensions"

    def write(path: Path, line: str) -> None:
        if path.parent == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        writing(path, line)

    with monkeypatch.context() as change:
        change.setattr(premises, "_write", write)
        for _ in range(3):
            with pytest.raises(PremisesRefused, match="No space left"):
                host.root()
        assert not any(host.system_dir.iterdir())
    assert [host.root()] == list(host.system_dir.iterdir())


def test_files_on_another_file_system_stay_and_are_used_there(host: Host) -> None:
    with tempfile.TemporaryDirectory(dir=OTHER_FILE_SYSTEM) as elsewhere:
        away = Host(Path(elsewhere) / "data", host.system_dir)
        away.before("data/demo.1/diary", f"{VERSION}/extension.py")
        for _ in range(2):
            assert away.root() == away.data_dir / "extensions"
            assert (away.data_dir / "extensions" / "data" / "demo.1" / "diary").read_text() == "kept"
            assert not any(host.system_dir.iterdir()), "nothing is left of the try"
            assert not (away.data_dir / "extensions" / "home").exists()
        shutil.rmtree(away.data_dir / "extensions" / "data" / "demo.1")
        assert away.root().parent == host.system_dir
