"""Files of a package on disk: whole or not there, exactly those, whatever was there before."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.extensions.package.making import package, signed

from magmobo.extensions.package.errors import UnpackedChanged, UnpackFailed
from magmobo.extensions.package.format import Package, digest
from magmobo.extensions.package.unpacked import sweep, unpack, verify_unpacked

FILES = {"lib/deep/a.py": "a = 1", "lib/b.py": "", "vendor/c/__init__.py": "c = 3"}


@pytest.fixture
def made(tmp_path: Path) -> Package:
    return package(tmp_path / "source", FILES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "versions").iterdir())


def test_the_files_are_there_to_be_read_and_nothing_else(made: Package, root: Path) -> None:
    mask = os.umask(0o077)
    try:
        place = unpack(made, root)
    finally:
        os.umask(mask)
    assert place == root / "versions" / made.sha256
    assert {
        str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()
    } == made.files
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.rglob("*") if path.is_file()} == {0o444}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [place, *place.rglob("*")] if path.is_dir()} == {0o755}
    assert names(root) == [made.sha256]


def test_doing_it_again_changes_nothing(made: Package, root: Path) -> None:
    before = unpack(made, root).stat()
    assert unpack(made, root).stat().st_ino == before.st_ino


def changed(place: Path) -> None:
    (place / "extension.py").chmod(0o644)
    (place / "extension.py").write_bytes(b"x" * (place / "extension.py").stat().st_size)


def longer(place: Path) -> None:
    (place / "extension.py").chmod(0o644)
    with (place / "extension.py").open("a") as file:
        file.write("x")


def missing(place: Path) -> None:
    (place / "lib/b.py").unlink()


def more(place: Path) -> None:
    (place / "lib/extra.py").write_text("x")


def more_folder(place: Path) -> None:
    (place / "sitecustomize").mkdir()


def linked(place: Path) -> None:
    content = (place / "extension.py").read_bytes()
    (place.parent.parent / "elsewhere.py").write_bytes(content)
    (place / "extension.py").unlink()
    (place / "extension.py").symlink_to(place.parent.parent / "elsewhere.py")


def folder_linked(place: Path) -> None:
    shutil.move(place / "lib", place.parent.parent / "lib")
    (place / "lib").symlink_to(place.parent.parent / "lib")


def whole_linked(place: Path) -> None:
    shutil.move(place, place.parent.parent / "whole")
    place.symlink_to(place.parent.parent / "whole")


def pipe(place: Path) -> None:
    (place / "extension.py").unlink()
    os.mkfifo(place / "extension.py")


@pytest.mark.parametrize(
    "change", [changed, longer, missing, more, more_folder, linked, folder_linked, whole_linked, pipe]
)
def test_what_was_changed_is_seen_and_unpacking_mends_it(
    change: Callable[[Path], None], made: Package, root: Path
) -> None:
    place = unpack(made, root)
    verify_unpacked(place, made.index)
    change(place)
    with pytest.raises(UnpackedChanged):
        verify_unpacked(place, made.index)
    verify_unpacked(unpack(made, root), made.index)
    assert not place.is_symlink()
    assert names(root) == [made.sha256]


def test_what_is_not_there_is_changed(made: Package, root: Path) -> None:
    with pytest.raises(UnpackedChanged, match="no such file"):
        verify_unpacked(root / "versions" / made.sha256, made.index)


def test_a_place_where_nothing_can_be_written_is_said(made: Package, root: Path) -> None:
    (root / "versions").write_text("a file")
    with pytest.raises(UnpackFailed, match=made.sha256):
        unpack(made, root)
    (root / "versions").unlink()
    (root / "versions").symlink_to("nowhere")
    with pytest.raises(UnpackFailed):
        unpack(made, root)
    with pytest.raises(UnpackFailed):
        unpack(made, root / "not" / "there")


def test_sweeping_keeps_what_is_named_and_what_is_not_ours(made: Package, root: Path, tmp_path: Path) -> None:
    other = package(tmp_path / "other", version="2.0.0")
    unpack(made, root)
    unpack(other, root)
    (root / "versions" / ".unpacking-0123").mkdir()
    (root / "versions" / "notes").mkdir()
    assert sorted(sweep(root, [made.sha256])) == sorted([other.sha256, ".unpacking-0123"])
    assert names(root) == sorted([made.sha256, "notes"])
    assert sweep(root / "empty", []) == []


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from magmobo.extensions.package.format import read_unverified
from magmobo.extensions.package.unpacked import unpack

package = read_unverified(Path(sys.argv[1]).read_bytes())
left = int(sys.argv[3])

def watch(event, args):
    global left
    if event in ("open", "os.rename", "os.mkdir", "os.chmod") and left is not None:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
unpack(package, Path(sys.argv[2]))
"""


def test_killed_at_any_step_the_version_is_whole_or_not_there(tmp_path: Path, root: Path) -> None:
    data = signed(tmp_path / "source", FILES)
    made = package(tmp_path / "again", FILES)
    assert made.sha256 == digest(data)
    (tmp_path / "demo.magx").write_bytes(data)
    kills = 0
    for step in range(1, 200, 4):
        words = [sys.executable, "-c", KILLED_AT, str(tmp_path / "demo.magx"), str(root), str(step)]
        code = subprocess.run(words, timeout=60, check=False).returncode
        present = (root / "versions" / made.sha256).exists()
        if present:
            verify_unpacked(root / "versions" / made.sha256, made.index)
        if code == 0:
            assert present
            break
        assert code == -signal.SIGKILL
        kills += 1
    else:
        pytest.fail("it never came to its end")
    assert kills >= 4
    sweep(root, [made.sha256])
    assert names(root) == [made.sha256]
