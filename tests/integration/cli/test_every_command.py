"""Every command of the table against a node's door that answers from a list: shapes, text, exit codes, who asks."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.admin.fake import Asked, FakeOperators, fake_node
from tests.integration.cli.replies import DETAIL, EVENT, EVIL, FINE, NODE, RECORD, REPLIES, SICK

import magmobo.cli.watch
from magmobo.admin.errors import AnswerTooLarge
from magmobo.admin.wire import MAX_REQUEST_BYTES
from magmobo.cli.group import COMMANDS
from magmobo.cli.main import main
from magmobo.contracts import operations as ops
from magmobo.contracts.errors import AuditUnavailable, DeadlineExceeded, MagError, Unavailable
from magmobo.contracts.planes import NodeStatus
from magmobo.kernel.commands.decode import decode_special

Capture = pytest.CaptureFixture[str]
ORDERS = ("restart", "stop", "start", "disable", "enable")
WORDS: dict[str, list[str]] = {
    "kernel:status": [], "kernel:blame": [], "kernel:events": [], "kernel:reset": ["--yes"], "kernel:commands": [],
    "component:list": [], "component:show": ["magds"], "component:graph": [],
    **{f"component:{order}": ["magds"] for order in ORDERS},
    "component:register": ["module:Class"], "component:unregister": ["magds"], "audit:tail": [],
    "config:show": [], "config:diff": [], "config:reload": [], "config:rollback": ["5"], "config:history": [],
    "config:set": ["health.interval_s", "5"], "config:unset": ["health.interval_s"],
    "vault:list": [], "vault:set": ["db", "--value-file", "secret.txt"], "vault:rotate": ["db", "--random"],
    "vault:remove": ["db", "--yes"], "vault:import": ["secrets.env"], "vault:rekey": [],
}  # fmt: skip


class Denied(MagError):
    """As the gate says it."""

    code = "MAG-TEST-006"
    exit_code = 6
    remedy = "Ask \x1b[31msomebody `mag else`."


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `mag` is called, with the files that commands read."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("MAG_")]:
        monkeypatch.delenv(variable)
    for name, text in (("secret.txt", "correct horse\n"), ("secrets.env", "MAIL=battery\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def node(place: Path) -> Iterator[FakeOperators]:
    folder = place / "mag_data"
    folder.mkdir(mode=0o700)
    with fake_node(folder, FakeOperators(REPLIES)) as operators:
        operators.replies["kernel:events"] = remembered
        yield operators


def remembered(asked: Asked) -> ops.EventPage:
    """The one event, to who has not seen it."""
    page: ops.EventPage = REPLIES["kernel:events"]
    return page if asked.params["after"] < page.cursor else ops.EventPage([], page.cursor, 0)


def said(capsys: Capture, *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert not err, err
    return out


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("command", WORDS)
def test_json_is_the_published_reply(node: FakeOperators, capsys: Capture, command: str) -> None:
    (kind,) = (kind for kind in ops.OPERATIONS if kind.name == command)
    answer = json.loads(said(capsys, command, *WORDS[command], "--json"))
    assert answer.pop("schema") == f"dev.magmobo.cli.{command.replace(':', '_')}.v1"
    assert answer.pop("command") == command
    msgspec.convert(answer, kind.reply, strict=True)
    everything = msgspec.to_builtins(REPLIES[command])
    if command not in ("kernel:status", "kernel:reset"):  # CONTRACTS section 4 fixes the fields of these
        assert answer == everything


def test_every_command_of_every_node_has_a_place_in_the_command_line() -> None:
    asked = {kind.name for kind in ops.OPERATIONS} - {"node:stop"}  # `mag down`
    assert asked <= COMMANDS.keys()
    assert asked == REPLIES.keys()
    assert asked - {"diagnostics:dump"} == WORDS.keys()


@pytest.mark.parametrize("command", WORDS)
def test_text_is_for_people_and_never_drives_the_terminal(node: FakeOperators, capsys: Capture, command: str) -> None:
    assert main([command, *WORDS[command]]) == 0
    out, _ = capsys.readouterr()
    assert out.strip()
    assert "\x1b" not in out
    assert EVIL not in out


@pytest.mark.parametrize("command", WORDS)
def test_a_command_asks_for_itself_alone(node: FakeOperators, capsys: Capture, command: str) -> None:
    assert main([command.replace(":", " ").split()[0], command.partition(":")[2], *WORDS[command]]) == 0
    (name,) = {asked.command for asked in node.asked}
    assert name in (command, "kernel:status")
    (kind,) = (kind for kind in ops.OPERATIONS if kind.name == name)
    msgspec.convert(node.asked[0].params, kind, strict=True, dec_hook=decode_special)


def test_a_command_of_a_component_is_called_by_its_name(node: FakeOperators, capsys: Capture) -> None:
    node.replies["tally:show"] = b'{"inserted": {"orders": 3}}'
    answer = json.loads(said(capsys, "kernel", "call", "tally:show", '{"table": "orders"}', "--json", "--dry-run"))
    assert (answer["name"], answer["reply"]) == ("tally:show", {"inserted": {"orders": 3}})
    assert json.loads(said(capsys, "kernel:call", "tally:show")) == answer["reply"]
    assert [(one.command, one.params, one.dry_run) for one in node.asked] == [
        ("tally:show", {"table": "orders"}, True),
        ("tally:show", {}, False),
    ]


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize(
    ("error", "code"),
    [(Denied(), 6), (DeadlineExceeded("x", 1), 7), (Unavailable("magds"), 1), (ZeroDivisionError(), 1)],
)
def test_an_error_of_the_node_is_told_once_with_its_exit_code(
    node: FakeOperators, capsys: Capture, command: str, error: Exception, code: int
) -> None:
    node.replies = dict.fromkeys(REPLIES, error)
    assert main([command, *WORDS[command], "--json"]) == code
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("mag: ")
    assert "\x1b" not in err
    assert "Traceback" not in err
    assert len(node.asked) == 1


class OfFormerVersion(MagError):
    code = "MAG-ADMIN-002"


@pytest.mark.parametrize("reason", [AuditUnavailable("the disk is full"), OfFormerVersion("no such command")])
def test_a_stop_that_cannot_be_ordered_names_the_signal_that_stops(
    node: FakeOperators, tmp_path: Path, capsys: Capture, reason: MagError
) -> None:
    node.replies["node:stop"] = reason
    (tmp_path / "mag_data" / "node.lock").write_text("4321\n")
    assert main(["down"]) == 1
    err = capsys.readouterr().err
    assert f"{reason} [MAG-CLI-011]" in err
    assert "`kill 4321` drains it" in err


AT_REST = [command for command in WORDS if command.startswith("vault:")]
"""They work without a node too: test_settings_files."""


@pytest.mark.parametrize("command", [*(command for command in WORDS if command not in AT_REST), "status", "down"])
def test_without_a_node_it_is_three(place: Path, capsys: Capture, command: str) -> None:
    folder = place / "none"
    words = [command, *WORDS.get(command, []), "--data-dir", str(folder)]
    assert main(words) == (2 if command == "audit:tail" else 3)  # the log can be read, but there is none
    out, err = capsys.readouterr()
    assert not out
    assert ("[MAG-ADMIN-001]" in err) is (command != "audit:tail")
    assert not folder.exists()


@pytest.mark.parametrize("command", ["status", "kernel:status", "component:list"])
@pytest.mark.parametrize("more", [[], ["--json"], ["--timeout", "5"]])
def test_a_node_that_is_not_well_is_four(node: FakeOperators, capsys: Capture, command: str, more: list[str]) -> None:
    node.replies["kernel:status"] = SICK
    assert "failed" in said(capsys, command, *more, code=4)


def test_a_component_that_is_not_well_is_four(node: FakeOperators, capsys: Capture) -> None:
    node.replies["component:show"] = msgspec.structs.replace(DETAIL, status=SICK.components[0])
    said(capsys, "component:show", "a", code=4)


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize("reply", [{}, {"components": 7}, {"state": [], "components": [{}], "uptime_s": "x"}])
def test_an_answer_of_another_version_is_coded(
    node: FakeOperators, capsys: Capture, command: str, reply: dict[str, Any]
) -> None:
    node.replies = dict.fromkeys(REPLIES, reply)
    assert main([command, *WORDS[command]]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert "[MAG-ADMIN-006]" in err


def test_down_returns_when_the_node_is_gone(node: FakeOperators, capsys: Capture) -> None:
    assert said(capsys, "down") == "the node (pid 7) has stopped\n"
    assert main(["down"]) == 3


# ---------------------------------------------------------------- who asks, and for how long


def test_a_role_and_a_justification_go_with_the_question(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(capsys, "--role", "viewer", "--breakglass", "fire", "component:show", "magds")
    monkeypatch.setenv("MAG_ROLE", "operator")
    said(capsys, "kernel:status")
    said(capsys, "kernel:blame")
    said(capsys, "--role", "developer", "kernel:status")
    assert [(asked.actor.role, asked.actor.justification) for asked in node.asked] == [
        ("viewer", "fire"), ("operator", ""), ("operator", ""), ("developer", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--role", "root", "kernel:status"], ["--breakglass"]])
def test_a_role_that_is_none_is_usage(node: FakeOperators, capsys: Capture, words: list[str]) -> None:
    assert main(words) == 2
    assert not node.asked


def test_a_role_of_the_environment_that_is_none_is_usage(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAG_ROLE", "root")
    assert main(["kernel:status"]) == 2


@pytest.mark.parametrize("command", [command for command in WORDS if command != "kernel:status"])
def test_the_node_hears_of_the_timeout(node: FakeOperators, capsys: Capture, command: str) -> None:
    assert main([command, *WORDS[command], "--timeout", "3.5"]) == 0
    assert {asked.timeout_s for asked in node.asked} == {3.5}


def test_a_name_as_long_as_a_request_may_be_is_refused_by_the_node(node: FakeOperators, capsys: Capture) -> None:
    assert main(["component:show", "x" * MAX_REQUEST_BYTES]) == 1
    assert "[MAG-ADMIN-004]" in capsys.readouterr().err


# ---------------------------------------------------------------- orders


@pytest.mark.parametrize("order", ORDERS)
def test_a_dry_run_is_asked_as_one_and_told_as_one(node: FakeOperators, capsys: Capture, order: str) -> None:
    assert said(capsys, f"component:{order}", "magds", "--dry-run").startswith(f"would {order} magds")
    assert node.asked[0].dry_run


class Terminal:
    """Somebody who can answer."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", ["component:stop", "component:disable", "component:unregister", "kernel:reset"])
@pytest.mark.parametrize("answer", [True, False])
def test_what_takes_something_away_asks_once_on_a_terminal(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str, answer: bool
) -> None:
    questions: list[str] = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("click.confirm", lambda text, **_: questions.append(text) or answer)
    words = [command, *WORDS[command]]
    assert main([word for word in words if word != "--yes"]) == (0 if answer else 1)
    assert len(questions) == 1
    assert bool(node.asked) is answer
    assert ("[MAG-CLI-005]" in capsys.readouterr().err) is not answer
    questions.clear()
    assert main([*words, *([] if "--yes" in words else ["--yes"])]) == 0
    assert not questions


def test_a_reset_is_not_for_scripts_that_did_not_say_so(node: FakeOperators, capsys: Capture) -> None:
    assert main(["kernel:reset"]) == 1
    assert "[MAG-CLI-005]" in capsys.readouterr().err
    assert not node.asked
    assert "would unboot" in said(capsys, "kernel:reset", "--dry-run")
    assert node.asked[0].dry_run


# ---------------------------------------------------------------- what people read


def test_blame_draws_the_critical_path(node: FakeOperators, capsys: Capture) -> None:
    rows = said(capsys, "kernel:blame").splitlines()
    assert rows[0].startswith("booted in 2.000 s")
    assert "did not end" in rows[1]
    drawn = {row[22:50].strip(): row[52:] for row in rows[3:]}
    assert drawn["pre_boot"] == "#" * 10
    assert drawn["component_load"] == drawn["magds boot"] == " " * 10 + "#" * 30
    assert drawn["listener boot"] == " " * 10 + "-" * 2


def test_a_graph_is_dot_when_asked(node: FakeOperators, capsys: Capture) -> None:
    assert said(capsys, "component:graph", "--dot") == "digraph {\n}\n"
    assert "maggate needs magds (Database)" in said(capsys, "component:graph")
    assert main(["component:graph", "--dot", "--json"]) == 2


# ---------------------------------------------------------------- streams


class Enough(Exception):
    """Stands in for Ctrl-C."""


def pages(*found: ops.EventPage) -> Any:
    left = list(found)

    def reply(asked: Asked) -> Any:
        return left.pop(0) if left else ops.EventPage([], asked.params["after"], 0)

    return reply


def test_events_are_read_to_the_end_and_the_last_are_shown(node: FakeOperators, capsys: Capture) -> None:
    many = [{**EVENT, "id": str(number)} for number in range(300)]
    node.replies["kernel:events"] = pages(ops.EventPage(many[:200], 200, 9), ops.EventPage(many[200:], 300, 0))
    answer = json.loads(said(capsys, "kernel:events", "--lines", "7", "--json", "--pattern", "component.*"))
    assert [event["id"] for event in answer["events"]] == [str(number) for number in range(293, 300)]
    assert (answer["cursor"], answer["missed"]) == (300, 0)
    assert [asked.params["after"] for asked in node.asked] == [0, 200, 300]
    assert {asked.params["pattern"] for asked in node.asked} == {"component.*"}


def test_events_behind_a_cursor_say_what_was_missed(node: FakeOperators, capsys: Capture) -> None:
    node.replies["kernel:events"] = pages(ops.EventPage([EVENT], 50, 4))
    assert main(["kernel:events", "--after", "40"]) == 0
    out, err = capsys.readouterr()
    assert "component.failed" in out
    assert "4 events were forgotten" in err
    assert node.asked[0].params["after"] == 40


def test_a_busy_node_does_not_hold_a_reader_for_ever(node: FakeOperators, capsys: Capture) -> None:
    node.replies["kernel:events"] = lambda asked: ops.EventPage(
        [{**EVENT, "time": "2999-01-01T00:00:00Z"}], asked.params["after"] + 1, 0
    )
    said(capsys, "kernel:events")
    assert len(node.asked) == 1


def test_events_too_large_for_one_answer_come_in_smaller_pages(node: FakeOperators, capsys: Capture) -> None:
    def reply(asked: Asked) -> Any:
        if asked.params["limit"] > 3:
            return AnswerTooLarge(1)
        return ops.EventPage([] if asked.params["after"] else [EVENT], 1, 0)

    node.replies["kernel:events"] = reply
    assert "component.failed" in said(capsys, "kernel:events")
    node.replies["kernel:events"] = AnswerTooLarge(1)
    assert main(["kernel:events"]) == 1


@pytest.mark.parametrize(
    ("page", "words", "expected"),
    [
        (ops.AuditPage([], 41), [], "mag: nothing is on record yet\n"),
        (ops.AuditPage([], 41), ["--action", "extension.deny"], "mag: no record is like that\n"),
        (ops.AuditPage([], 41), ["--extension", "nobody"], "mag: no record is like that\n"),
        (ops.AuditPage([], 41), ["--extension", "nobody", "--json"], ""),
        (
            ops.AuditPage([RECORD], 41, 1),
            [],
            "mag: left out 1 record of summed-up calls of extensions; --all shows them\n",
        ),
        (
            ops.AuditPage([], 41, 2),
            [],
            "mag: left out 2 records of summed-up calls of extensions; --all shows them\n",
        ),
    ],
)
def test_a_tail_says_what_is_not_in_it(
    node: FakeOperators, capsys: Capture, page: ops.AuditPage, words: list[str], expected: str
) -> None:
    node.replies["audit:tail"] = page
    assert main(["audit:tail", *words]) == 0
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("command", ["kernel:events", "audit:tail"])
def test_following_waits_at_the_node_and_ends_with_it(node: FakeOperators, capsys: Capture, command: str) -> None:
    kind, items = (ops.EventPage, [EVENT]) if command == "kernel:events" else (ops.AuditPage, [RECORD])
    told = [{"cursor": 50, "missed": 0, ("events" if kind is ops.EventPage else "records"): items}]

    def reply(asked: Asked) -> Any:
        if asked.params["wait_s"] == 0:
            return remembered(asked) if kind is ops.EventPage else REPLIES[command]
        assert asked.params["after"] in (12, 41, 50)
        return told.pop(0) if told else Unavailable("the end")

    node.replies[command] = reply
    assert main([command, "--follow", "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line.pop("schema").startswith("dev.magmobo.cli.")
        assert line.pop("command") == command
        msgspec.convert(line, kind)


@pytest.mark.parametrize("command", ["status", "kernel:status", "component:list", "component:show"])
@pytest.mark.parametrize("as_json", [True, False])
def test_watching_asks_again_until_interrupted(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str, as_json: bool
) -> None:
    pauses: list[float] = []

    def pause(duration_s: float) -> None:
        pauses.append(duration_s)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(magmobo.cli.watch.time, "sleep", pause)
    words = [command, *WORDS.get(command, []), "--watch", *(["--json"] if as_json else [])]
    assert main(words) == 130
    out = capsys.readouterr().out
    assert pauses == [2.0] * 3
    assert len(node.asked) == 3
    if as_json:
        assert [json.loads(line)["command"] for line in out.splitlines()] == [command] * 3
    assert "\x1b" not in out


class Screen(io.StringIO):
    """A terminal to write on."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "colours"), [("", True), ("1", False)])
def test_on_a_terminal_each_answer_is_drawn_over_the_last(
    node: FakeOperators, monkeypatch: pytest.MonkeyPatch, no_color: str, colours: bool
) -> None:
    def interrupted(duration_s: float) -> None:
        raise KeyboardInterrupt

    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(magmobo.cli.watch.time, "sleep", interrupted)
    assert main(["component:list", "--watch"]) == 130
    assert screen.getvalue().startswith("\x1b[H\x1b[2J  magds")
    assert ("\x1b[32mrunning" in screen.getvalue()) is colours
    monkeypatch.setenv("TERM", "dumb")
    screen.truncate(0)
    assert main(["component:list", "--watch"]) == 130
    assert "\x1b" not in screen.getvalue()


# ---------------------------------------------------------------- the archive


def test_a_folder_that_is_not_there_gives_an_archive_that_says_so(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "dump.tar.gz"
    assert main(["diagnostics:dump", "--data-dir", str(tmp_path / "none"), "--output", str(path)]) == 0
    assert "[MAG-ADMIN-001]" in capsys.readouterr().err
    assert path.exists()
    assert not (tmp_path / "none").exists()


def test_the_archive_holds_what_the_node_told_and_is_private(node: FakeOperators, capsys: Capture) -> None:
    answer = json.loads(said(capsys, "diagnostics:dump", "--json"))
    path = Path(answer["file"])
    assert path.parent == Path.cwd()
    assert path.name.startswith("mag-diagnostics-")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == answer["bytes"]
    assert (answer["node_answered"], answer["notes"]) == (True, [])
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert {member.name.partition("/")[2] for member in members} == {
        "README.txt", *(part["name"] for part in answer["parts"]),
    }  # fmt: skip
    assert {(member.mode, member.uid, member.uname) for member in members} == {(0o600, 0, "")}


def test_an_archive_is_never_written_over_another_file(node: FakeOperators, capsys: Capture, tmp_path: Path) -> None:
    target, link = tmp_path / "there", tmp_path / "link"
    target.write_text("kept")
    link.symlink_to(target)
    for path in (target, link):
        assert main(["diagnostics:dump", "--output", str(path)]) == 2
        assert "[MAG-CLI-007]" in capsys.readouterr().err
    assert target.read_text() == "kept"
    assert main(["diagnostics:dump", "--output", str(tmp_path / "no" / "where")]) == 1
    assert "[MAG-CLI-008]" in capsys.readouterr().err


def test_a_denied_archive_is_none(node: FakeOperators, capsys: Capture, tmp_path: Path) -> None:
    node.replies["diagnostics:dump"] = Denied()
    assert main(["diagnostics:dump"]) == 6
    assert not list(tmp_path.glob("*.tar.gz"))


@pytest.mark.parametrize("error", [DeadlineExceeded("it", 1), ZeroDivisionError(), None])
def test_a_node_that_hangs_breaks_or_is_down_still_gives_an_archive(
    node: FakeOperators, capsys: Capture, tmp_path: Path, error: Exception | None
) -> None:
    if error is None:
        assert main(["down"]) == 0
    node.replies["diagnostics:dump"] = error
    assert main(["diagnostics:dump", "--output", "dump.tar.gz"]) == 0
    assert "nothing from the node itself" in capsys.readouterr().err
    with tarfile.open(tmp_path / "dump.tar.gz") as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"README.txt", "versions.json", "doctor.json", "log.jsonl", "folder.txt", "audit.jsonl"} <= set(names)
    assert not [name for name in names if name.startswith("node/")]


def test_wrong_settings_do_not_keep_the_archive_from_being_made(
    node: FakeOperators, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "mag.toml").write_text("[kernel\n")
    assert main(["diagnostics:dump", "--output", "dump.tar.gz", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "MAG-CONF-002" in answer["notes"][0]
    assert answer["node_answered"] is True


def test_the_status_is_what_scripts_rely_on(node: FakeOperators, capsys: Capture) -> None:
    found = json.loads(said(capsys, "kernel:status", "--json"))
    assert list(found) == [
        "schema", "command", "instance_id", "state", "environment", "version", "uptime_s", "components",
    ]  # fmt: skip
    assert list(found["components"][0]) == ["name", "state", "health", "restarts", "since"]
    status = msgspec.convert({key: found[key] for key in list(found)[2:]}, NodeStatus, strict=True)
    assert status.components == [msgspec.structs.replace(FINE, detail="")]
    assert (status.instance_id, status.uptime_s) == (NODE.instance_id, NODE.uptime_s)
