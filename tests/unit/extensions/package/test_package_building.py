"""From a folder to a package and back: the same bytes each time, nothing that should stay at home."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.extensions.package.making import CODE, KEYS, PAIR, asked, calm, folder, package, signed

from magmobo.extensions.package.archive import MAX_FILE_BYTES, read_archive, write_archive
from magmobo.extensions.package.build import pack, sign
from magmobo.extensions.package.errors import ManifestRefused, PackageRefused, PackFailed
from magmobo.extensions.package.format import digest, read_package, read_unverified
from magmobo.extensions.package.keys import PRIVATE_MARK, generate

SCHEMA = [asked("database.schema")]
MIGRATIONS = {
    "migrations/0002_more.up.sql": "alter table t add b int",
    "migrations/0001_begin.up.sql": "create table t (a int)",
    "migrations/0001_begin.down.sql": "drop table t",
}


def test_the_same_folder_gives_the_same_bytes_wherever_it_is(tmp_path: Path) -> None:
    files = {"lib/a.py": "a = 1", "vendor/thing-1.0.dist-info/RECORD": "x", "README.md": "# Demo\n" * 50}
    one = folder(tmp_path / "one", files)
    two = folder(tmp_path / "two", dict(reversed(files.items())))
    for path in one.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert pack(one) == pack(two)
    assert sign(pack(one), PAIR) == signed(tmp_path / "two")


def test_what_is_packed_is_read_as_it_was(tmp_path: Path) -> None:
    data = signed(tmp_path, MIGRATIONS, capabilities=SCHEMA)
    found = read_package(data, KEYS)
    assert (found.id, found.version, found.key_id, found.signer) == ("demo", "1.0.0", PAIR.key_id, PAIR.key_id)
    assert (found.sha256, found.size_bytes) == (digest(data), len(data))
    assert found.files["extension.py"] == CODE.encode()
    assert set(found.files) == {"manifest.json", "extension.py", *MIGRATIONS}
    assert [(one.version, one.name, one.up, one.down) for one in found.migrations] == [
        ("0001", "begin", "create table t (a int)", "drop table t"),
        ("0002", "more", "alter table t add b int", ""),
    ]


def test_any_zip_tool_can_look_into_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(signed(tmp_path))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["MAGX.json", "MAGX.sig", "extension.py", "manifest.json"]


def test_what_stays_at_home(tmp_path: Path) -> None:
    stays = [
        "tests/test_x.py",
        "__pycache__/x.py",
        "lib/__pycache__/x.py",
        ".git/config",
        ".env",
        "old.magx",
        "my.key",
        "my.key.pub",
        "lib/x.pyc",
    ]
    goes = ["vendor/build/__init__.py", "lib/tests/x.py"]
    found = package(tmp_path, dict.fromkeys(stays + goes, "x"))
    assert set(found.files) == {"manifest.json", "extension.py", *goes}


def test_a_signature_is_replaced(tmp_path: Path) -> None:
    other = generate()
    again = sign(signed(tmp_path), other)
    assert read_package(again, {other.key_id: other.public}).key_id == other.key_id
    assert read_unverified(pack(tmp_path)).key_id == ""


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a b.py": "x"}, "names of letters"),
        ({"ü.py": "x"}, "names of letters"),
        ({"x.so": "x"}, "compiled"),
        ({"/".join("abcdefghijklmn"): "x"}, "longer than"),
        ({"notes.txt": f"{PRIVATE_MARK} {'A' * 43}="}, "private key"),
        ({"big.bin": os.urandom(MAX_FILE_BYTES + 1)}, "larger than"),
    ],
)
def test_what_cannot_be_packed(tmp_path: Path, files: dict[str, str | bytes], why: str) -> None:
    with pytest.raises(PackFailed, match=why):
        pack(folder(tmp_path, files))


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    (folder(tmp_path / "a") / "link.py").symlink_to("/etc/hostname")
    os.mkfifo(folder(tmp_path / "b") / "pipe")
    (folder(tmp_path / "c") / "lib").symlink_to(folder(tmp_path / "elsewhere"))
    for name, why in (("a", "it is a symbolic link"), ("b", "no regular file"), ("c", "it is a symbolic link")):
        with pytest.raises(PackFailed, match=why):
            pack(tmp_path / name)


def test_a_folder_without_a_manifest_or_with_a_bad_one_is_none(tmp_path: Path) -> None:
    (folder(tmp_path / "a") / "manifest.json").unlink()
    with pytest.raises(PackFailed, match=r"no manifest\.json"):
        pack(tmp_path / "a")
    with pytest.raises(PackFailed, match="no such file"):
        pack(tmp_path / "nowhere")
    with pytest.raises(ManifestRefused):
        pack(folder(tmp_path / "b", version="1"))


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"extension.py": ""}, None),
        ({"migrations/1_x.up.sql": "x"}, "not named like"),
        ({"migrations/0001_X.up.sql": "x"}, "not named like"),
        ({"migrations/0001_x.sql": "x"}, "not named like"),
        ({"migrations/0001_x.down.sql": "x"}, "no .up.sql"),
        ({"migrations/0001_x.up.sql": " \n"}, "is empty"),
        ({"migrations/0001_x.up.sql": b"\xff"}, "UTF-8"),
        ({"migrations/0001_x.up.sql": b"a\0b"}, "UTF-8"),
        ({"migrations/0001_x.up.sql": "x", "migrations/0001_y.up.sql": "y"}, "two migrations"),
        ({"migrations/0001_x.up.sql": "x", "migrations/00010_y.up.sql": "y"}, "one form"),
        ({"migrations/20261123_x.up.sql": "x", "migrations/20261123T0900_y.up.sql": "y"}, "one form"),
        ({"migrations/0001_x.up.sql": "x", "migrations/README.md": "y"}, "not named like"),
    ],
)
def test_migrations_have_names_that_give_an_order(
    tmp_path: Path, files: dict[str, str | bytes], why: str | None
) -> None:
    place = folder(tmp_path, files, capabilities=SCHEMA)
    if why is None:
        assert pack(place)
        return
    with pytest.raises(PackageRefused, match=why):
        pack(place)


def test_what_the_manifest_says_must_be_in_the_package(tmp_path: Path) -> None:
    with pytest.raises(PackageRefused, match=r"needs a file pkg/main\.py"):
        pack(folder(tmp_path / "a", entry="pkg.main:ext"))
    assert pack(folder(tmp_path / "b", {"pkg/main/__init__.py": CODE}, entry="pkg.main:ext"))
    with pytest.raises(PackageRefused, match=r"capability database\.schema"):
        pack(folder(tmp_path / "c", MIGRATIONS))


paths = st.lists(st.text(alphabet="abAB0_.-", min_size=1, max_size=4), min_size=1, max_size=3).map("/".join)


@calm
@given(st.dictionaries(paths, st.binary(max_size=300) | st.just(b"x" * 5000), max_size=6))
def test_any_files_come_back_or_are_refused_by_their_names(files: dict[str, bytes]) -> None:
    data = write_archive(files)
    try:
        assert read_archive(data) == files
    except PackageRefused:
        folded = {path.lower() for path in files}
        fine = all(segment[0] not in ".-" and segment[-1] != "." for path in files for segment in path.split("/"))
        nested = any(f"{one}/" in f"{other}/" and one != other for one in folded for other in folded)
        assert not files or not fine or len(folded) < len(files) or nested
