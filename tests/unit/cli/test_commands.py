"""Parsing, help, reference commands and errors of `mag`, without a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

import magmobo.cli.group
from magmobo.cli.audit import written_whole
from magmobo.cli.component import detail_lines
from magmobo.cli.errors import OutputFileRefused
from magmobo.cli.group import COMMANDS, NounVerbGroup, mag
from magmobo.cli.main import main
from magmobo.cli.operate import node_fields
from magmobo.cli.reference import runbooks, title_of
from magmobo.cli.statuses import component_line, exit_code_of, status_lines
from magmobo.contracts.errors import DeadlineExceeded, MagError
from magmobo.contracts.operations import ComponentDetail
from magmobo.contracts.planes import ComponentStatus, NodeStatus

Capture = pytest.CaptureFixture[str]


def node(state: str, *parts: tuple[str, str]) -> NodeStatus:
    components = [ComponentStatus(f"c{number}", *part, 0, "now") for number, part in enumerate(parts)]
    return NodeStatus("id", state, "test", "1", 1.0, components)


def test_every_command_of_the_table_is_there_and_says_what_it_is() -> None:
    context = click.Context(mag)
    assert isinstance(mag, NounVerbGroup)
    for name in COMMANDS:
        command = mag.get_command(context, name)
        assert command is not None
        assert command.help, name


@pytest.mark.parametrize("words", [["kernel:status"], ["kernel", "status"]])
def test_a_noun_and_a_verb_may_be_two_words(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert main([*words, "--data-dir", str(tmp_path)]) == 3
    assert "[MAG-ADMIN-001]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["kernel"],
        ["kernel", "nonsense"],
        ["component", "--json"],
        ["nonsense"],
        ["up", "--port", "x"],
        ["up", "a", "b"],
    ],
)
def test_a_wrong_command_is_usage(words: list[str], capsys: Capture) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "Traceback" not in err


def test_speed_needs_a_demo(capsys: Capture) -> None:
    assert main(["up", "--speed", "3"]) == 2
    assert "--demo" in capsys.readouterr().err


def test_a_noun_lists_its_verbs(capsys: Capture) -> None:
    assert main(["component", "--help"]) == 0
    assert "list" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["up", "--help"], ["kernel:status", "-h"], ["--version"]])
def test_help_is_no_error(words: list[str], capsys: Capture) -> None:
    assert main(words) == 0
    assert "mag" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom magmobo.cli.main import main\nmain(['--help'])\n"
        "heavy = {'msgspec', 'psycopg', 'uvicorn', 'structlog', 'starlette', 'asyncio', 'rich', 'magmobo.node'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.strip() == "[]"


def test_explain_gives_cause_and_next_step(capsys: Capture) -> None:
    assert main(["explain", "mag-core-002"]) == 0
    out = capsys.readouterr().out
    assert "An operation did not finish inside its deadline." in out
    assert DeadlineExceeded.remedy in out
    assert main(["explain", "[MAG-CORE-002]", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["command"], found["exit_code"]) == ("dev.magmobo.cli.explain.v1", "explain", 7)


@pytest.mark.parametrize("code", ["MAG-CORE-0002", "", "\x1b[31m", "x" * 10_000])
def test_explain_of_no_code_is_usage(code: str, capsys: Capture) -> None:
    assert main(["explain", code]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "[MAG-CLI-001]" in err
    assert len(err) < 400


def test_runbooks_are_listed_and_printed(capsys: Capture) -> None:
    assert main(["runbook", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["runbooks"]
    assert listed.keys() == runbooks().keys()
    assert "ask-for-help" in listed
    for name, title in listed.items():
        assert title.startswith("Runbook: "), name
        assert main(["runbook", name]) == 0
        assert title in capsys.readouterr().out
    assert main(["runbook"]) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = {line.index(listed[line.split()[0]].removeprefix("Runbook: ")) for line in lines}
    assert len(lines) == len(listed)
    assert starts == {max(map(len, listed)) + 4}, "the titles stand below each other, two blanks from the longest name"


def test_a_page_without_a_heading_has_no_title() -> None:
    assert title_of("text\n## Late\n") == "Late"
    assert title_of("") == ""


@pytest.mark.parametrize("name", ["ask-for-hepl", "../../etc/passwd", "", "\x1b[31m"])
def test_a_runbook_that_is_none_is_usage(name: str, capsys: Capture) -> None:
    assert main(["runbook", name]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "[MAG-CLI-009]" in err
    assert "\x1b" not in err


def test_version_as_json(capsys: Capture) -> None:
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == magmobo.__version__


def test_status_fields_are_the_contract() -> None:
    status = node("ready", ("running", "healthy"))
    assert list(node_fields(status)) == ["instance_id", "state", "environment", "version", "uptime_s", "components"]
    assert list(node_fields(status)["components"][0]) == ["name", "state", "health", "restarts", "since"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (node("ready"), 0),
        (node("ready", ("running", "healthy"), ("running", "unknown")), 0),
        (node("ready", ("running", "degraded")), 4),
        (node("degraded", ("failed", "unknown")), 4),
        (node("booting", ("running", "healthy")), 4),
        (node("ready", ("stopped", "unknown")), 4),
        (node("ready", ("quarantined", "unknown")), 4),
        (node("ready", ("disabled", "unknown")), 0),
    ],
)
def test_only_a_node_that_is_all_well_is_zero(status: NodeStatus, code: int) -> None:
    assert exit_code_of(msgspec.to_builtins(status)) == code


@click.command()
def boom() -> None:
    """Break."""
    raise ZeroDivisionError("secret \x1b[31m")


@click.command()
def forbidden() -> None:
    """Raise an error with an exit code of its own."""
    raise DeadlineExceeded("the\nthing", 1)


@click.command()
def interrupted() -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    group = click.Group("mag", commands={"boom": boom, "forbidden": forbidden, "interrupted": interrupted})
    monkeypatch.setattr(magmobo.cli.group, "mag", group)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_an_unexpected_error_names_a_file_with_the_details(broken: Path, capsys: Capture) -> None:
    assert main(["boom"]) == 1
    err = capsys.readouterr().err
    (report,) = broken.glob("mag-crash-*.txt")
    assert str(report) in err
    assert f"[{MagError.code}]" in err
    assert "Traceback" not in err
    assert "secret" not in err
    assert "ZeroDivisionError" in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


def test_an_unexpected_error_is_told_also_where_no_file_can_be_written(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(broken / "gone"))
    assert main(["boom"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("mag: something unexpected happened (ZeroDivisionError); no file could be written")
    assert "Traceback" not in err


def test_half_a_file_is_taken_back_and_the_full_disk_named(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch()
    with pytest.raises(OutputFileRefused, match="no space left"), written_whole(path, os.open("/dev/full", 1)) as file:
        file.write(b"x")
    assert not path.exists()


def test_an_error_of_ours_is_one_line_and_a_next_step(broken: Path, capsys: Capture) -> None:
    assert main(["forbidden"]) == 7
    assert capsys.readouterr().err == (
        f"mag: the thing did not finish within 1 s [MAG-CORE-002]\nnext: {DeadlineExceeded.remedy}\n"
    )


def test_an_interrupt_is_130(broken: Path) -> None:
    assert main(["interrupted"]) == 130


def line_of(state: str, health: str, restarts: int, detail: str) -> str:
    return component_line(
        {"name": "x", "state": state, "health": health, "restarts": restarts, "since": "noon", "detail": detail}
    )


def test_a_component_is_told_in_words_that_are_true() -> None:
    assert line_of("running", "unknown", 1, "").split()[1:] == ["running", "unchecked", "since", "noon", "1", "restart"]
    assert line_of("running", "healthy", 2, "").endswith("2 restarts")
    assert line_of("stopped", "unknown", 0, "").split() == ["x", "stopped", "-", "since", "noon"]
    assert line_of("disabled", "unknown", 0, "disabled").endswith("since noon")
    assert line_of("failed", "unknown", 0, "no disk").endswith("since noon  no disk")


def test_a_status_names_who_is_kept_from_starting_and_why() -> None:
    off = ("disabled", "unknown")
    fields = msgspec.to_builtins(node("ready", ("running", "healthy"), off, off))
    for component in fields["components"][1:]:
        component["detail"] = "safe mode"
    assert [line.split() for line in status_lines(fields)][1:] == [["off", "c1,", "c2", "(safe", "mode)"]]


@pytest.mark.parametrize("role", ["viewer", "developer"])
@pytest.mark.parametrize("words", [["magds:psql", "-c", "drop table t"], ["magds:dsn"], ["detach", "--yes"]])
def test_who_only_looks_is_kept_from_commands_that_no_node_checks(
    role: str, words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert main(["--role", role, words[0], "--data-dir", str(tmp_path), *words[1:]]) == 6
    assert "[MAG-CLI-010]" in capsys.readouterr().err


@pytest.mark.parametrize("fields", ["[]", "nonsense", "[" * 100_000, ""])
def test_fields_of_a_command_are_one_object(fields: str, capsys: Capture) -> None:
    assert main(["kernel:call", "tally:show", fields]) == 2
    assert "one JSON object" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "step"), [("quarantined", "mend the cause"), ("stopped", "`"), ("running", "")])
def test_a_component_that_is_down_is_shown_with_the_order_that_brings_it_back(state: str, step: str) -> None:
    status = ComponentStatus("x", state, "unknown", 0, "noon")
    detail = ComponentDetail(status, "1", "s:X", [], [], [], [], [], [], [], "", [], 3, 0, 0)
    rows = [line for line in detail_lines(detail) if line.startswith("  next")]
    assert len(rows) == bool(step)
    assert all(step in row and "component:start x" in row for row in rows)
