"""`mag diagnostics:dump`, also by root, on the folder and against the node of somebody who wants more than help."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.admin.fake import FakeOperators, fake_node

from magmobo.admin.archive import folder_parts, known_secrets
from magmobo.admin.data_folder import DataFolder
from magmobo.cli.main import main
from magmobo.contracts.operations import Diagnostics, DiagnosticsPart

STRANGE = "root:$6$saltsalt$hash-of-somebody-else:19000:0:99999:7:::\n"
DEADLINE_S = 60


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """A data folder of somebody's, and outside of it a file that they may not read."""
    (tmp_path / "shadow").write_text(STRANGE)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "telling-name").touch()
    folder = DataFolder(tmp_path / "mag_data")
    folder.log_dir.mkdir(parents=True)
    folder.secrets_file.parent.mkdir()
    (folder.path / "postgres").mkdir()
    return folder


def texts(folder: DataFolder) -> dict[str, str]:
    """The parts, made in a thread: one that waits for a pipe fails the test instead of holding it."""
    found: dict[str, str] = {}
    work = threading.Thread(
        target=lambda: found.update({part.name: part.text for part in folder_parts(folder, [])}), daemon=True
    )
    work.start()
    work.join(DEADLINE_S)
    assert found, "the archive did not come to an end"
    return found


@pytest.mark.parametrize("name", ["logs/mag.jsonl", "logs/node.out", "logs/mag-crash-1.txt"])
def test_a_link_leads_nowhere(folder: DataFolder, tmp_path: Path, name: str) -> None:
    (folder.path / name).symlink_to(tmp_path / "shadow")
    assert not [name for name, text in texts(folder).items() if "somebody-else" in text]


def test_a_listing_stays_in_the_folder(folder: DataFolder, tmp_path: Path) -> None:
    (folder.path / "more").symlink_to(tmp_path / "hidden")
    listing = texts(folder)["folder.txt"]
    assert "more" in listing
    assert "telling-name" not in listing


@pytest.mark.parametrize("name", ["logs/mag.jsonl", "logs/node.out", "logs/mag-crash-1.txt"])
def test_a_pipe_is_not_waited_for(folder: DataFolder, name: str) -> None:
    os.mkfifo(folder.path / name)
    assert texts(folder)["versions.json"]


@pytest.mark.parametrize("name", ["secrets/a.toml", "postgres/a.json"])
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_the_search_for_secrets_waits_for_nobody(folder: DataFolder, tmp_path: Path, name: str, what: str) -> None:
    planted = folder.path / name
    os.mkfifo(planted) if what == "pipe" else planted.symlink_to("/dev/zero")
    found: list[list[str]] = []
    search = threading.Thread(target=lambda: found.append(list(known_secrets(folder, tmp_path, {}))), daemon=True)
    search.start()
    search.join(DEADLINE_S)
    assert found == [[]]


def test_a_secret_that_the_environment_names_by_its_file_is_known(folder: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgres://mag:planted-Passw0rd@db/x\n")
    known = list(known_secrets(folder, tmp_path, {"MAG_MAGDS__DSN_FILE": str(tmp_path / "dsn")}))
    assert "planted-Passw0rd" in known


@pytest.fixture
def evil(folder: DataFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeOperators]:
    """A node that chooses the names of its parts."""
    names = ["../../.ssh/authorized_keys", "/etc/passwd", "a/../../b", "\x1b[31m", "x" * 5_000, "", "..", "a\nb"]
    reply = Diagnostics([DiagnosticsPart(name, "text\n") for name in names])
    monkeypatch.chdir(tmp_path)
    with fake_node(folder.path, FakeOperators({"diagnostics:dump": reply, "kernel:status": b"{}"})) as operators:
        yield operators


def test_names_stay_in_the_archive(evil: FakeOperators, folder: DataFolder, tmp_path: Path) -> None:
    assert main(["diagnostics:dump", "--data-dir", str(folder.path), "--output", "a.tar.gz"]) == 0
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "out", filter="data")  # refuses what would lie outside
    assert len(names) == len(set(names))
    assert all(name.startswith("mag-diagnostics-") and ".." not in name.split("/") for name in names)
    assert all(name.isprintable() and len(name) < 200 for name in names)
    assert sum("/node/" in name for name in names) == 8
