"""Taking a data folder: what is made, what is refused, and who holds it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from magmobo.admin.data_folder import DataFolder, NodeLock, write_atomically
from magmobo.admin.errors import (
    DataFolderError,
    DataFolderIsFile,
    DataFolderOccupied,
    DataFolderReadOnly,
    DiskFull,
    NodeAlreadyRuns,
    data_folder_error,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "deep" / "mag_data")
    folder.claim()
    NodeLock(folder).acquire()
    folder.furnish()
    assert [mode_of(path) for path in (folder.path, folder.log_dir, folder.secrets_file.parent)] == [0o700] * 3
    assert mode_of(folder.lock_file) == 0o600


def test_an_empty_folder_with_a_lax_mode_is_tightened(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    DataFolder(tmp_path).claim()
    assert mode_of(tmp_path) == 0o700


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataFolderOccupied, match="holds other files"):
        DataFolder(tmp_path).claim()
    assert mode_of(tmp_path) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_of_ours_is_taken_again(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.claim()
    lock = NodeLock(folder)
    lock.acquire()
    (tmp_path / "postgres").mkdir()
    lock.release()
    folder.claim()
    NodeLock(folder).acquire()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_is_no_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderIsFile):
        DataFolder(tmp_path / place).claim()


def test_a_path_that_cannot_be_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="too long"):
        DataFolder(tmp_path / ("a" * 300)).claim()


def test_a_folder_of_somebody_else_is_refused() -> None:
    assert (
        as_plain_user("DataFolder(Path('/')).claim()") == "DataFolderForeign: the data folder / belongs to another user"
    )


def test_a_read_only_place_is_refused() -> None:
    assert as_plain_user("DataFolder(Path('/mag')).claim()") == "DataFolderReadOnly: /mag cannot be written"


def test_a_folder_that_may_not_be_written_is_refused() -> None:
    script = (
        "with tempfile.TemporaryDirectory() as place:\n"
        "    folder = DataFolder(Path(place))\n"
        "    folder.claim()\n"
        "    Path(place).chmod(0o500)\n"
        "    NodeLock(folder).acquire()\n"
    )
    assert as_plain_user(script).startswith("DataFolderReadOnly: ")


def as_plain_user(script: str) -> str:
    """The error a script ends with, up to its reason. As nobody when we are root, else as ourselves."""
    imports = (
        "import os, tempfile\nfrom pathlib import Path\nfrom magmobo.admin.data_folder import DataFolder, NodeLock\n"
        "if os.geteuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", imports + script], capture_output=True, text=True, cwd="/", timeout=30, check=False
    )
    kind, _, text = done.stderr.strip().splitlines()[-1].rpartition(".errors.")[2].partition(": ")
    return f"{kind}: {text.partition(' (')[0]}"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EROFS, DataFolderReadOnly),
        (errno.EACCES, DataFolderReadOnly),
        (errno.ENOTDIR, DataFolderIsFile),
        (errno.EIO, DataFolderError),
    ],
)
def test_each_refusal_of_the_system_has_its_code(number: int, kind: type[DataFolderError]) -> None:
    assert type(data_folder_error(Path("/data"), OSError(number, os.strerror(number)))) is kind


def test_a_second_node_is_told_who_has_the_folder(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    first = NodeLock(folder)
    first.acquire()
    with pytest.raises(NodeAlreadyRuns, match=f"pid {os.getpid()}"):
        NodeLock(folder).acquire()
    first.release()
    first.release()
    second = NodeLock(folder)
    second.acquire()
    assert second.held
    assert not first.held


def test_the_lock_of_a_killed_node_is_free(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom magmobo.admin.data_folder import DataFolder, NodeLock\n"
        f"lock = NodeLock(DataFolder(Path({str(folder.path)!r})))\nlock.acquire()\nprint('held', flush=True)\n"
        "time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(NodeAlreadyRuns, match=f"pid {holder.pid}"):
            NodeLock(folder).acquire()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    NodeLock(folder).acquire()


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    (tmp_path / "precious").write_text("keep me")
    folder.lock_file.symlink_to(tmp_path / "precious")
    with pytest.raises(DataFolderError):
        NodeLock(folder).acquire()
    assert (tmp_path / "precious").read_text() == "keep me"


def test_the_instance_id_is_made_once(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    first = folder.instance_id()
    assert len(first) == 16
    assert DataFolder(tmp_path).instance_id() == first


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_atomically(path, "old")
    assert mode_of(path) == 0o600
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert [left.name for left in tmp_path.iterdir()] == ["secret"]
