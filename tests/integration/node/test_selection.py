"""`mag up --safe`, `--only` and `--without`, as a user types them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.integration.node.harness import mag, up


def started(cwd: Path, *arguments: str) -> tuple[set[str], list[str]]:
    """Start a node of three components; the names of those that run, and the notices."""
    with up("--data-dir", "data", *arguments, cwd=cwd, components="Steady Sick Parent") as node:
        ready = node.ready()
        node.process.terminate()
        assert node.end()[0] == 0
    return {one["name"] for one in ready["components"] if one["state"] == "running"}, ready["notices"]


@pytest.mark.parametrize(
    ("arguments", "running"),
    [
        ([], {"steady", "sick", "parent"}),
        (["--safe"], set()),
        (["--only", "steady"], {"steady"}),
        (["--only", "steady, sick"], {"steady", "sick"}),
        (["--only", "steady", "--only", "parent"], {"steady", "parent"}),
        (["--without", "sick,parent"], {"steady"}),
        (["--only", "steady,sick", "--without", "parent"], {"steady", "sick"}),
    ],
)
def test_those_asked_for_run(tmp_path: Path, arguments: list[str], running: set[str]) -> None:
    assert started(tmp_path, *arguments)[0] == running


def test_the_file_can_leave_out_components_too(tmp_path: Path) -> None:
    (tmp_path / "mag.toml").write_text('[kernel]\nwithout = ["sick"]')
    assert started(tmp_path)[0] == {"steady", "parent"}


def test_a_safe_node_answers_its_operator_and_ends(tmp_path: Path) -> None:
    done = mag("up", "--background", "--safe", "--data-dir", "data", "--json", cwd=tmp_path, components="Steady Sick")
    assert done.returncode == 0, done.stderr
    ready = json.loads(done.stdout)
    try:
        assert not [one for one in ready["components"] if one["state"] == "running"]
        assert mag("down", "--data-dir", "data", cwd=tmp_path).returncode == 0
    except BaseException:
        os.kill(ready["pid"], signal.SIGKILL)
        raise


@pytest.mark.parametrize("option", ["--only", "--without"])
def test_a_name_nobody_has_is_answered_with_the_nearest(tmp_path: Path, option: str) -> None:
    done = mag("up", "--data-dir", "data", option, "steddy", cwd=tmp_path, components="Steady Sick")
    assert done.returncode == 2
    assert 'there is no component "steddy"; did you mean "steady"?' in done.stderr
    assert not (tmp_path / "data").exists(), "a slip of the keyboard made a folder"


@pytest.mark.parametrize(
    "arguments", [["--safe", "--only", "steady"], ["--safe", "--without", "steady"], ["--only", ""], ["--only", ", ,"]]
)
def test_what_contradicts_itself_is_usage(tmp_path: Path, arguments: list[str]) -> None:
    done = mag("up", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_background_is_told_everything(tmp_path: Path) -> None:
    words = ["up", "--background", "--only", "steady,sick", "--without", "sick", "--data-dir", "data"]
    done = mag(*words, cwd=tmp_path, components="Steady Sick Parent")
    assert done.returncode == 2, done.stderr
    assert 'component "sick" cannot start: it is left out' in done.stderr
