"""A data folder whose files were damaged or exchanged: a coded refusal, never a crash, never a fresh start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from magmobo.admin.data_folder import DataFolder
from magmobo.admin.errors import DataFolderError
from magmobo.contracts.errors import StateUnavailable
from magmobo.kernel.observe.writer import FileTarget
from magmobo.kernel.state.manager import StateManager

PRECIOUS = b"somebody's file\n"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * 100_000, b"abc\x1b[31m", b"two words", b"line\nline", b"\0"])
def test_an_instance_id_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    folder = DataFolder(tmp_path)
    folder.instance_file.write_bytes(content)
    with pytest.raises(DataFolderError, match="instance_id"):
        folder.instance_id()
    assert folder.instance_file.read_bytes() == content


def test_an_empty_one_is_made_anew(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.instance_file.write_bytes(b"\n")
    assert folder.instance_id() == folder.instance_id() != ""


def planted(tmp_path: Path, name: str) -> tuple[DataFolder, Path]:
    """A data folder, as restored from an archive, in which `name` leads out of it."""
    folder, outside = DataFolder(tmp_path / "mag_data"), tmp_path / "precious"
    outside.write_bytes(PRECIOUS)
    link = folder.path / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    return folder, outside


def test_the_probe_for_room_writes_through_no_link(tmp_path: Path) -> None:
    folder, outside = planted(tmp_path, ".room")
    with pytest.raises(DataFolderError):
        folder.furnish()
    assert outside.read_bytes() == PRECIOUS


def test_the_log_is_written_through_no_link(tmp_path: Path) -> None:
    folder, outside = planted(tmp_path, "logs/mag.jsonl")
    with pytest.raises(OSError, match="symbolic links"):
        FileTarget(folder.log_file)
    assert outside.read_bytes() == PRECIOUS


def test_the_output_of_a_node_is_written_through_no_link(tmp_path: Path) -> None:
    folder, outside = planted(tmp_path, "logs/node.out")
    command = [sys.executable, "-m", "magmobo.cli.main", "up", "--safe", "--background", "--data-dir", str(folder.path)]
    (folder.path / "node.lock").touch()
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert ended.returncode not in (0, 3)
    assert outside.read_bytes() == PRECIOUS


@pytest.mark.parametrize("name", ["state.db-mark", "state.db"])
async def test_the_state_is_written_through_no_link(tmp_path: Path, name: str) -> None:
    states = StateManager(tmp_path / "state" / "state.db")
    states.path.parent.mkdir()
    await states.open()
    await states.close()
    file, outside = states.path.with_name(name), tmp_path / "outside"
    before = file.read_bytes()
    file.rename(outside)
    outside.chmod(0o644)
    file.symlink_to(outside)
    with pytest.raises(StateUnavailable):
        await StateManager(states.path).open()
    assert (outside.read_bytes(), outside.stat().st_mode & 0o777) == (before, 0o644)
