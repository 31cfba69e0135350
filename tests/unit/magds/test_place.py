"""Records, passwords, readiness and logs: what survives, what is refused, what is shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from magmobo.components.magds.cluster import no_space
from magmobo.components.magds.errors import ClusterDamaged, ConnectionLost, Overloaded, PlaceRefused
from magmobo.components.magds.log_file import MAX_BYTES, LogFile
from magmobo.components.magds.place import Owner, Place, Records
from magmobo.components.magds.processes import is_running, leave_with_parent, serving, started_at


def test_a_place_is_read_back_and_follows_a_moved_folder(tmp_path: Path) -> None:
    records = Records(tmp_path / "a")
    records.create()
    records.save_place(Place(records.folder, None, True))
    (tmp_path / "a").rename(tmp_path / "b")
    assert Records(tmp_path / "b").place() == Place(tmp_path / "b/postgres/.", None, True)
    records = Records(tmp_path / "b")
    records.save_place(Place(Path("/var/lib/x/1"), Owner(60_800, 60_800), False))
    assert records.place() == Place(Path("/var/lib/x/1"), Owner(60_800, 60_800), False)
    assert (records.folder.stat().st_mode & 0o777) == 0o700


def test_passwords_are_made_once_private_and_strong(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.create()
    made = records.passwords(create=True)
    assert records.passwords(create=False) == made
    assert min(len(made.superuser), len(made.node)) >= 40
    assert made.superuser != made.node
    assert ((records.folder / "passwords.json").stat().st_mode & 0o777) == 0o600


def test_a_cluster_without_its_record_is_not_taken_for_a_first_start(tmp_path: Path) -> None:
    records = Records(tmp_path)
    (records.folder / "cluster").mkdir(parents=True)
    with pytest.raises(ClusterDamaged):
        records.place()


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").write_text("not a folder")
    with pytest.raises(PlaceRefused):
        Records(tmp_path).create()


def test_the_log_shows_this_run_only_and_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(path)
    assert log.tail() == "(it wrote no log)"
    path.write_text("old words\n")
    log.begin()
    with log.open() as file:
        file.write(b"new words\n")
        file.flush()
        assert log.tail() == "new words"
        file.write(b"x" * MAX_BYTES)
        file.flush()
        log.trim()
        assert path.stat().st_size == 0
        file.write(b"after\n")
        file.flush()
    assert log.tail() == "after"
    assert (tmp_path / "log.1").stat().st_size > MAX_BYTES


def test_a_process_is_known_by_pid_and_start_time() -> None:
    child = subprocess.Popen(["sleep", "60"])
    started = started_at(child.pid)
    assert is_running(child.pid, started)
    assert not is_running(child.pid, "1")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert started_at(child.pid) is None  # a zombie counts as gone
    child.wait()
    assert not is_running(child.pid, started)


def test_only_postgres_in_that_very_folder_serves_it(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        assert serving(tmp_path) == []
        assert serving(tmp_path / "nowhere") == []
    finally:
        child.kill()
        child.wait()


def test_a_child_leaves_when_its_parent_is_killed() -> None:
    script = (
        "import subprocess,sys,time\nfrom magmobo.components.magds.processes import leave_with_parent\n"
        "child=subprocess.Popen(['sleep','60'],preexec_fn=leave_with_parent(15),stdout=subprocess.DEVNULL)\n"
        "print(child.pid,flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    watched = os.pidfd_open(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    import select

    assert select.select([watched], [], [], 10)[0], "the child stayed"
    os.close(watched)
    assert callable(leave_with_parent(9))


@pytest.mark.parametrize(
    ("text", "full"),
    [("could not write: No space left on device", True), ("Disk quota exceeded", True), ("no such file", False)],
)
def test_a_full_disk_is_told_from_other_failures(text: str, full: bool) -> None:
    assert no_space(text) is full


def test_errors_survive_pickling() -> None:
    import pickle

    for error in (ConnectionLost("gone"), Overloaded(7), PlaceRefused(Path("/x"), "no")):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
