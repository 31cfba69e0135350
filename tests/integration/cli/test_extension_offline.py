"""An author's path without a node: a new extension, its tests, a package, keys, a signature; and what is refused."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from magmobo.cli.main import main
from magmobo.extensions.package.format import read_package
from magmobo.extensions.package.keys import key_id, parse_public
from magmobo.extensions.package.scaffold import templates

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: Capture, *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert not err, err
    return out


def told(capsys: Capture, *words: str, code: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(said(capsys, *words, "--json", code=code))
    assert answer["schema"] == f"dev.magmobo.cli.{words[0].replace(':', '_')}.v1"
    return answer


def refused(capsys: Capture, *words: str, code: int, error: str) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert not out
    assert f"[{error}]" in err
    return err


def test_from_a_new_extension_to_a_signed_package(place: Path, capfd: Capture) -> None:
    assert told(capfd, "extension:new", "delay-alerts")["files"] == sorted(templates())
    assert "0.1.0 is valid" in said(capfd, "extension:validate", "delay-alerts")
    assert main(["extension:test", "delay-alerts"]) == 0
    assert "3 passed" in capfd.readouterr().out
    key = told(capfd, "extension:keygen")
    assert stat.S_IMODE((place / "magx.key").stat().st_mode) == 0o600
    packed = told(capfd, "extension:pack", "delay-alerts")
    assert packed["key_id"] == ""
    file = Path(packed["file"])
    assert file == place / "delay-alerts-0.1.0.magx"
    assert told(capfd, "extension:sign", file.name, "--key", "magx.key")["key_id"] == key["key_id"]
    public = parse_public((place / "magx.key.pub").read_text())
    package = read_package(file.read_bytes(), {key_id(public): public})
    assert package.id == "delay-alerts"
    assert not [path for path in package.files if "test" in path or path.startswith(".")]
    facts = told(capfd, "extension:validate", file.name)
    assert (facts["ok"], facts["key_id"], facts["sha256"]) == (True, key["key_id"], package.sha256)
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["delay-alerts", "delay-alerts-0.1.0.magx", "magx.key", "magx.key.pub"]
    )


def test_packing_and_signing_are_one_step_with_a_key(place: Path, capsys: Capture) -> None:
    said(capsys, "extension:new", "demo")
    said(capsys, "extension:keygen", "my.key")
    said(capsys, "extension:pack", "demo", "--key", "my.key", "--output", "one.magx")
    said(capsys, "extension:pack", "demo", "--output", "two.magx")
    lines = said(capsys, "extension:sign", "two.magx", "--key", "my.key", "--output", "three.magx").splitlines()
    assert lines[0].startswith("three.magx: demo 0.1.0, ")
    assert lines[2].startswith("  signed by  key ")
    assert (place / "one.magx").read_bytes() == (place / "three.magx").read_bytes()
    assert (place / "two.magx").read_bytes() != (place / "three.magx").read_bytes()


def test_no_file_is_written_over_unless_told(place: Path, capsys: Capture) -> None:
    said(capsys, "extension:new", "demo")
    said(capsys, "extension:pack", "demo")
    refused(capsys, "extension:pack", "demo", code=2, error="MAG-CLI-007")
    said(capsys, "extension:pack", "demo", "--replace")
    said(capsys, "extension:keygen")
    before = (place / "magx.key").read_bytes()
    refused(capsys, "extension:keygen", code=5, error="MAG-EXT-171")
    assert (place / "magx.key").read_bytes() == before
    (place / "demo" / "extension.py").write_text("mine")
    refused(capsys, "extension:new", "demo", code=2, error="MAG-EXT-173")
    assert (place / "demo" / "extension.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["Demo", "a_b", "../x", "a--b", "", "x" * 41, "ü", "a/b"])
def test_a_name_that_is_no_id_makes_nothing(name: str, place: Path, capsys: Capture) -> None:
    assert "lower-case words" in refused(capsys, "extension:new", "--", name, code=2, error="MAG-EXT-173")
    assert list(place.iterdir()) == []


def test_mistakes_are_listed_with_their_places(place: Path, capsys: Capture) -> None:
    said(capsys, "extension:new", "demo")
    manifest = json.loads((place / "demo/manifest.json").read_text())
    manifest |= {"nmae": "x", "version": "\x1b[31m1"}
    (place / "demo/manifest.json").write_text(json.dumps(manifest))
    for target in ("demo", "demo/manifest.json"):
        lines = said(capsys, "extension:validate", target, code=5).splitlines()
        assert lines[0] == f"FAIL  1 mistake in {target}"
        assert lines[1] == "  $.version: it holds control or invisible characters"
    (place / "demo/manifest.json").write_text(json.dumps(manifest | {"version": "1"}))
    problems = told(capsys, "extension:validate", "demo", code=5)["problems"]
    assert problems == [{"path": "$", "reason": "there is no field 'nmae'; did you mean name?"}]
    refused(capsys, "extension:pack", "demo", code=5, error="MAG-EXT-160")


def test_a_folder_is_checked_with_its_files(place: Path, capsys: Capture) -> None:
    said(capsys, "extension:new", "demo")
    (place / "demo/extension.py").unlink()
    (place / "demo/migrations/1_x.sql").write_text("x")
    reasons = [one["reason"] for one in told(capsys, "extension:validate", "demo", code=5)["problems"]]
    assert len(reasons) == 2
    (place / "demo/link").symlink_to("/etc/hostname")
    assert "symbolic link" in said(capsys, "extension:validate", "demo", code=5)


def test_what_is_no_package_is_said(place: Path, capsys: Capture) -> None:
    (place / "x.magx").write_bytes(b"PK\3\4 nothing")
    assert "package: " in said(capsys, "extension:validate", "x.magx", code=5)
    refused(capsys, "extension:validate", "gone.magx", code=2, error="MAG-CLI-014")
    said(capsys, "extension:keygen")
    refused(capsys, "extension:sign", "x.magx", "--key", "magx.key", code=5, error="MAG-EXT-161")
    assert (place / "x.magx").read_bytes() == b"PK\3\4 nothing"
    refused(capsys, "extension:pack", "nowhere", code=5, error="MAG-EXT-172")


def test_a_key_that_others_may_read_signs_nothing(place: Path, capsys: Capture) -> None:
    said(capsys, "extension:new", "demo")
    said(capsys, "extension:keygen")
    (place / "magx.key").chmod(0o644)
    text = refused(capsys, "extension:pack", "demo", "--key", "magx.key", code=5, error="MAG-EXT-171")
    assert (place / "magx.key").read_text().split()[1] not in text
    assert not (place / "demo-0.1.0.magx").exists()


def test_tests_that_fail_and_tests_that_are_not_there(place: Path, capfd: Capture) -> None:
    said(capfd, "extension:new", "demo")
    (place / "pytest.ini").write_text("[pytest]\naddopts = --of-another-project\n")
    assert main(["extension:test", "demo", "-q", "-k", "healthy"]) == 0
    out, err = capfd.readouterr()
    assert "1 passed" in out
    assert not err, "other plugins that are here have nothing to say about it"
    (place / "demo/tests/test_extension.py").write_text("def test_it():\n    assert False\n")
    assert main(["extension:test", "demo", "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["pytest_exit_code"] == 1
    assert "1 failed" in err
    (place / "demo/tests/test_extension.py").unlink()
    assert main(["extension:test", "demo"]) == 1
    capfd.readouterr()
    refused(capfd, "extension:test", "nowhere", code=2, error="MAG-CLI-014")
