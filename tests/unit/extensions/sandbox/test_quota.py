"""What is too much in a data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from magmobo.extensions.sandbox import quota
from magmobo.extensions.sandbox.quota import find_excess

MIB = 1_048_576


def fill(path: Path, size_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size_bytes))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_what_fits_is_no_excess(tmp_path: Path) -> None:
    fill(tmp_path / "a" / "b" / "file", MIB // 2)

    assert find_excess(tmp_path, MIB) == ""
    assert find_excess(tmp_path / "missing", MIB) == ""


def test_files_count_together_at_any_depth(tmp_path: Path) -> None:
    for number in range(3):
        fill(tmp_path / f"{number}" / "deep" / "file", MIB // 2)

    assert find_excess(tmp_path, MIB) == f"more than {MIB} bytes"


def test_a_file_counts_by_what_it_takes_and_not_by_its_length(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(100 * MIB)

    assert find_excess(tmp_path, MIB) == ""


def test_many_empty_files_are_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_FILES", 20)
    for number in range(21):
        (tmp_path / f"{number}").touch()

    assert find_excess(tmp_path, MIB) == "more than 20 files"


def test_what_is_elsewhere_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere" / "file", 2 * MIB)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")

    assert find_excess(tmp_path / "data", MIB) == ""


def test_names_too_long_to_follow_are_too_much(tmp_path: Path) -> None:
    """A worker makes folders in folders by relative paths, deeper than any absolute path reaches."""
    came_from = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(20):
            Path("f" * 250).mkdir()
            os.chdir("f" * 250)
    finally:
        os.chdir(came_from)

    assert "cannot be looked at" in find_excess(tmp_path, MIB)


def test_files_without_a_name_count_for_whoever_has_them_open(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(bytes(2 * MIB))
        os.fsync(file.fileno())
        (tmp_path / "file").unlink()

        assert find_excess(tmp_path, MIB) == ""
        assert find_excess(tmp_path, MIB, os.getpid()) == f"more than {MIB} bytes"
