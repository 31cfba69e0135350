"""`config:*` and `vault:*` against a door that answers from a list: plans, questions, and secrets on their way."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.admin.fake import Asked, FakeOperators, fake_node
from tests.integration.cli.replies import PLAN, PLANNED, REPLIES, SINCE, TREE, outcome

from magmobo.cli.main import main
from magmobo.contracts.configuration import ConfigTree, ConfigVersions, ReloadOutcome, ReloadPlan
from magmobo.contracts.errors import ReloadRefused
from magmobo.kernel.vault.driver import MAX_SECRET_BYTES

Capture = pytest.CaptureFixture[str]
SECRET = "correct horse battery staple"
CHANGES: dict[str, list[str]] = {
    "config:reload": [], "config:rollback": [], "config:set": ["health.interval_s", "5"],
    "config:unset": ["health.interval_s"],
}  # fmt: skip
NOTHING = ReloadOutcome(6, False, ReloadPlan([]))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOperators]:
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("MAG_")]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "mag_data"
    folder.mkdir(mode=0o700)
    with fake_node(folder, FakeOperators({**REPLIES, **dict.fromkeys(CHANGES, outcome)})) as operators:
        yield operators


def said(capsys: Capture, *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert not err, err
    return out


class Input(io.TextIOWrapper):
    """Standard input: a pipe with this in it, or a terminal."""

    def __init__(self, content: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content))
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody who can answer, and says yes. What was asked."""
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin", Input(terminal=True))
    monkeypatch.setattr("click.confirm", lambda text, **_: asked.append(text) or True)
    return asked


# ---------------------------------------------------------------- looking


def test_settings_are_shown_with_who_set_them_when_that_is_asked(node: FakeOperators, capsys: Capture) -> None:
    plain, full = said(capsys, "config:show"), said(capsys, "config", "show", "--origin")
    assert "version 6, production" in plain
    assert "mag.toml line 3" not in plain
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in full.splitlines()}
    assert rows["key"] == "value set by change takes"
    assert rows["listener.port"] == "8787 default component restart"
    assert rows["magds.dsn"] == "*** mag.toml line 3 live (from vault:db)"
    assert rows["magds.password"] == "unset default live"
    assert rows["logging.level"].endswith(f"live (until {SINCE})")
    assert rows["magds.schema"].endswith("node restart (another value waits for a restart of the node)")
    for text in (plain, full):
        assert "an older version was taken back" in text
        assert "did not take effect" in text
        assert "mag down" in text


def test_a_tree_without_remarks_has_none(node: FakeOperators, capsys: Capture) -> None:
    node.replies["config:show"] = ConfigTree(1, "test", [TREE.entries[0]])
    assert said(capsys, "config:show").splitlines() == ["version 1, test", "  listener.port  8787"]


def test_one_key_is_asked_for_by_name(node: FakeOperators, capsys: Capture) -> None:
    said(capsys, "config:show", "magds")
    assert node.asked[0].params == {"prefix": "magds"}


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_key_that_is_none_is_usage_with_the_nearest(node: FakeOperators, capsys: Capture, more: list[str]) -> None:
    node.replies["config:show"] = lambda asked: ConfigTree(1, "test", []) if asked.params["prefix"] else TREE
    assert main(["config:show", "magds.dns", *more]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "did you mean magds.dsn? [MAG-CLI-012]" in err
    assert main(["config:show", "magd"]) == 2
    assert "did you mean magds?" in capsys.readouterr().err


def test_a_plan_says_what_each_change_takes(node: FakeOperators, capsys: Capture) -> None:
    text = said(capsys, "config:diff")
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert rows[0] == "4 settings differ"
    assert "health.interval_s 10.0 -> 5.0 live mag.toml line 7" in rows
    assert "magds.dsn changed live secrets/production.toml line 2" in rows
    assert 'kernel.data_dir "a" -> "b" node restart mag.toml line 2' in rows
    assert "live the node itself, magds (told while they serve)" in rows
    assert "restart magws (made anew, in this order)" in rows
    assert "waiting kernel.data_dir (count after a restart of the node only)" in rows


def test_a_plan_of_nothing_says_so(node: FakeOperators, capsys: Capture) -> None:
    node.replies["config:diff"] = ReloadPlan([])
    assert said(capsys, "config:diff") == "no setting differs\n"
    node.replies["config:diff"] = ReloadPlan([], waiting=["kernel.data_dir"])
    assert said(capsys, "config:diff").startswith("  waiting  kernel.data_dir")
    node.replies["config:diff"] = ReloadPlan(PLAN.changes[:1])
    assert said(capsys, "config:diff").startswith("1 setting differs\n")


def test_a_diff_asks_for_a_version_or_for_removed_files(node: FakeOperators, capsys: Capture) -> None:
    said(capsys, "config:diff", "--version", "3")
    said(capsys, "config:diff", "--accept-removed")
    assert [asked.params for asked in node.asked] == [
        {"version": 3, "accept_removed": False}, {"version": None, "accept_removed": True},
    ]  # fmt: skip
    assert main(["config:diff", "--version", "0"]) == 2


def test_the_history_names_what_changed(node: FakeOperators, capsys: Capture) -> None:
    heads, first, last = said(capsys, "config:history", "--limit", "2").splitlines()
    assert heads.split() == ["version", "since", "cause", "who", "what", "changed"]
    assert node.asked[0].params == {"limit": 2}
    assert first.split()[:5] == ["7", "now", SINCE, "file", "kernel"]
    assert "a.k5, and 3 more" in first
    assert last.split() == ["1", SINCE, "boot", "kernel", "(no", "longer", "kept)"]
    node.replies["config:history"] = ConfigVersions([])
    assert "no version" in said(capsys, "config:history")


# ---------------------------------------------------------------- changing


@pytest.mark.parametrize("command", CHANGES)
def test_the_plan_is_shown_before_anything_is_done(node: FakeOperators, capsys: Capture, command: str) -> None:
    text = said(capsys, command, *CHANGES[command])
    assert [asked.dry_run for asked in node.asked] == [True, False]
    assert text.index("4 settings differ") < text.index("version 7 counts now  (12 ms)")
    assert text.count("settings differ") == 1
    assert "next: `" in text


@pytest.mark.parametrize("command", CHANGES)
def test_a_dry_run_is_only_that(node: FakeOperators, capsys: Capture, questions: list[str], command: str) -> None:
    text = said(capsys, command, *CHANGES[command], "--dry-run")
    assert "nothing was changed (--dry-run); version 6 counts" in text
    assert "next:" not in text
    assert "it is set" not in text
    answer = json.loads(said(capsys, command, *CHANGES[command], "--dry-run", "--json"))
    assert (answer["applied"], answer["version"]) == (False, 6)
    assert [asked.dry_run for asked in node.asked] == [True, True]
    assert not questions


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("command", CHANGES)
def test_somebody_at_a_terminal_is_asked_once_with_the_plan(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, questions: list[str], command: str,
    more: list[str],
) -> None:  # fmt: skip
    assert main([command, *CHANGES[command], *more]) == 0
    out, err = capsys.readouterr()
    assert "4 settings differ" in (err if more else out)
    assert len(questions) == 1
    assert [asked.dry_run for asked in node.asked] == [True, False]
    if more:
        assert json.loads(out)["version"] == 7
    node.asked.clear()
    monkeypatch.setattr("click.confirm", lambda text, **_: False)
    assert main([command, *CHANGES[command], *more]) == 1
    assert "[MAG-CLI-005]" in capsys.readouterr().err
    assert [asked.dry_run for asked in node.asked] == [True]


@pytest.mark.parametrize("command", CHANGES)
def test_who_said_yes_is_not_asked(node: FakeOperators, capsys: Capture, questions: list[str], command: str) -> None:
    said(capsys, command, *CHANGES[command], "--yes")
    assert [asked.dry_run for asked in node.asked] == [True, False]
    node.asked.clear()
    said(capsys, command, *CHANGES[command], "--yes", "--json")
    assert [asked.dry_run for asked in node.asked] == [False]
    assert not questions


@pytest.mark.parametrize("command", CHANGES)
def test_nothing_to_change_is_no_question_and_is_carried_out(
    node: FakeOperators, capsys: Capture, questions: list[str], command: str
) -> None:
    node.replies[command] = NOTHING
    text = said(capsys, command, *CHANGES[command])
    assert "no setting differs\nthere was nothing to change; version 6 counts\n" in text
    assert len(node.asked) == 2
    assert not questions


def test_what_waits_is_no_change_yet(node: FakeOperators, capsys: Capture) -> None:
    node.replies["config:set"] = ReloadOutcome(6, False, ReloadPlan(PLAN.changes[3:], waiting=PLAN.waiting))
    text = said(capsys, "config:set", "kernel.data_dir", "b")
    assert "nothing changes before a restart of the node; version 6 counts\nnext: `" in text


def test_what_takes_effect_is_told_when_it_is_not_what_was_shown(node: FakeOperators, capsys: Capture) -> None:
    less = ReloadPlan(PLAN.changes[:1])
    node.replies["config:reload"] = lambda asked: PLANNED if asked.dry_run else ReloadOutcome(7, True, less)
    text = said(capsys, "config:reload")
    assert text.index("4 settings") < text.index("changed again meanwhile") < text.index("1 setting differs")


@pytest.mark.parametrize("at", [True, False])
def test_a_refusal_is_five_and_says_what_refused(node: FakeOperators, capsys: Capture, at: bool) -> None:
    def reply(asked: Asked) -> Any:
        return ReloadRefused("magds: it is another database") if asked.dry_run is at else PLANNED

    node.replies["config:reload"] = reply
    assert main(["config:reload"]) == 5
    out, err = capsys.readouterr()
    assert "magds: it is another database [MAG-CONF-003]" in err
    assert "counts" not in out


def test_what_was_said_reaches_the_node(node: FakeOperators, capsys: Capture) -> None:
    said(capsys, "config:reload", "--json", "--accept-removed")
    said(capsys, "config:rollback", "--json")
    said(capsys, "config:rollback", "4", "--json")
    said(capsys, "config:set", "a.b", "[1, 2]", "--ttl", "1h30m", "--json")
    said(capsys, "config:set", "--json", "a.b", "--", "-5")
    said(capsys, "config:unset", "a.b", "--json")
    assert [asked.params for asked in node.asked] == [
        {"accept_removed": True}, {"version": None}, {"version": 4}, {"key": "a.b", "value": "[1, 2]", "ttl_s": 5400},
        {"key": "a.b", "value": "-5", "ttl_s": None}, {"key": "a.b"},
    ]  # fmt: skip


def test_a_set_says_how_long_it_holds(node: FakeOperators, capsys: Capture) -> None:
    assert "it is set for 600 s" in said(capsys, "config:set", "a.b", "c", "--ttl", "10m")
    assert "config:unset a.b`" in said(capsys, "config:set", "a.b", "c")


@pytest.mark.parametrize("ttl", ["0", "0s", "31d", "10 m", "-5", "1e3", "m", "", "1h30", "nan", "inf", "9" * 40 + "s"])
def test_a_duration_that_is_none_is_usage(node: FakeOperators, capsys: Capture, ttl: str) -> None:
    assert main(["config:set", "a.b", "c", f"--ttl={ttl}"]) == 2
    assert not node.asked


# ---------------------------------------------------------------- the vault


def test_the_vault_is_listed_with_who_takes_what(node: FakeOperators, capsys: Capture) -> None:
    first, *rows = said(capsys, "vault:list").splitlines()
    assert first == "local vault, 2 secrets; key: secrets/vault.key"
    assert rows[0].split() == ["db", "version", "3", "2", "kept", SINCE, "magds.dsn"]
    assert rows[1].endswith("no setting takes it")


@pytest.mark.parametrize("command", ["vault:set", "vault:rotate"])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
@pytest.mark.parametrize("way", ["file", "dash", "pipe"])
def test_a_secret_comes_from_a_file_or_a_pipe_without_its_last_line_break(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, ending: str,
    way: str,
) -> None:  # fmt: skip
    content = f" two\nlines é {ending}".encode()
    (tmp_path / "value").write_bytes(content)
    monkeypatch.setattr("sys.stdin", Input(content if way != "file" else b"not this"))
    words = {"file": ["--value-file", "value"], "dash": ["--value-file", "-"], "pipe": []}[way]
    said(capsys, command, "db", *words)
    assert node.asked[0].params["value"] == " two\nlines é "
    assert node.asked[0].params["entry"] == "db"


def test_a_secret_is_typed_twice_without_an_echo(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[dict[str, Any]] = []
    monkeypatch.setattr("sys.stdin", Input(terminal=True))
    monkeypatch.setattr("click.prompt", lambda text, **how: typed.append(how) or SECRET)
    assert main(["vault:set", "db"]) == 0
    assert node.asked[0].params["value"] == SECRET
    (how,) = typed
    assert how["hide_input"] is True
    assert how["confirmation_prompt"]
    assert how["err"] is True
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"\xff\xfe" + SECRET.encode(), "it is not UTF-8 text (byte 0)"),
        (b"x" * (MAX_SECRET_BYTES + 1), f"it is longer than {MAX_SECRET_BYTES} bytes"),
        (b"x" * (4 * MAX_SECRET_BYTES), f"it is longer than {MAX_SECRET_BYTES} bytes"),
    ],
)
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_what_is_no_secret_is_usage_and_asks_no_node(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, reason: str,
    way: str,
) -> None:  # fmt: skip
    (tmp_path / "value").write_bytes(content)
    monkeypatch.setattr("sys.stdin", Input(content if way == "pipe" else b""))
    assert main(["vault:set", "db", *(["--value-file", "value"] if way == "file" else [])]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert f"{reason} [MAG-CLI-013]" in err
    assert SECRET not in err
    assert not node.asked


class Endless:
    """A pipe that goes on and on."""

    def isatty(self) -> bool:
        return False

    @property
    def buffer(self) -> Endless:
        return self

    def read(self, size: int) -> bytes:
        assert 0 < size < 2 * MAX_SECRET_BYTES
        return b"x" * size


def test_no_more_is_read_than_a_secret_can_be(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Endless())
    assert main(["vault:set", "db"]) == 2
    assert "it is longer than" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("letter", [b"x", b"\x01"])  # the second takes six letters of JSON
def test_the_longest_secret_is_taken(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, ending: bytes, letter: bytes
) -> None:
    monkeypatch.setattr("sys.stdin", Input(letter * MAX_SECRET_BYTES + ending))
    said(capsys, "vault:set", "db")
    assert len(node.asked[0].params["value"]) == MAX_SECRET_BYTES


@pytest.mark.parametrize("path", ["nothing-here", "."])
def test_a_file_that_cannot_be_read_is_named(node: FakeOperators, capsys: Capture, path: str) -> None:
    assert main(["vault:set", "db", "--value-file", path]) == 2
    assert f"no secret was read from {path}: " in capsys.readouterr().err


def test_no_standard_input_is_no_secret(node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["vault:set", "db"]) == 2
    assert "standard input: it is empty" in capsys.readouterr().err


def test_a_secret_is_no_argument(node: FakeOperators, capsys: Capture) -> None:
    for words in (["vault:set", "db", SECRET], ["vault:rotate", "db", SECRET], ["vault:set", "db", "--value", SECRET]):
        assert main(words) == 2
    assert not node.asked


def test_a_rotation_is_random_or_goes_back(node: FakeOperators, capsys: Capture) -> None:
    said(capsys, "vault:rotate", "db", "--random")
    said(capsys, "vault:rotate", "db", "--random", "--bytes", "64")
    said(capsys, "vault:rotate", "db", "--version", "2")
    assert [asked.params for asked in node.asked] == [
        {"entry": "db", "value": None, "version": None, "size_bytes": 32},
        {"entry": "db", "value": None, "version": None, "size_bytes": 64},
        {"entry": "db", "value": None, "version": 2, "size_bytes": 32},
    ]


@pytest.mark.parametrize(
    "more", [["--random", "--version", "1"], ["--random", "--value-file", "x"], ["--bytes", "64"], ["--version", "0"]]
)
def test_a_rotation_that_contradicts_itself_is_usage(node: FakeOperators, capsys: Capture, more: list[str]) -> None:
    assert main(["vault:rotate", "db", *more]) == 2
    assert not node.asked


def test_who_took_the_new_secret_is_told(node: FakeOperators, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("x")
    text = said(capsys, "vault:set", "db", "--value-file", "value")
    assert text == "stored db, version 3\ntaken at once by magds.dsn; settings version 7 counts\n"
    assert said(capsys, "vault:rotate", "db", "--random") == "stored db, version 3\n"


@pytest.mark.parametrize(("command", "alone"), [("vault:remove", False), ("vault:rekey", True)])
def test_what_cannot_be_taken_back_is_asked(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, questions: list[str], command: str,
    alone: bool,
) -> None:  # fmt: skip
    words = [command, *(["db"] if command == "vault:remove" else [])]
    said(capsys, *words)
    said(capsys, *words, "--yes")
    assert (len(questions), len(node.asked)) == (1, 2)
    node.asked.clear()
    monkeypatch.setattr("sys.stdin", Input())
    assert main(words) == (0 if alone else 1)
    assert bool(node.asked) is alone


def test_an_import_is_shown_before_it_is_confirmed(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, questions: list[str]
) -> None:
    (tmp_path / "s.env").write_text(f"DATABASE_URL='{SECRET}'\n")
    (tmp_path / "s.env").chmod(0o600)
    assert main(["vault:import", "s.env"]) == 0
    out, err = capsys.readouterr()
    assert "would be added: mail" in err
    assert out.splitlines()[:2] == ["added: mail", "given a new version: db"]
    assert [asked.dry_run for asked in node.asked] == [True, False]
    assert node.asked[1].params == {"entries": {"database_url": SECRET}}
    assert len(questions) == 1
    assert SECRET not in out + err
    monkeypatch.setattr("click.confirm", lambda text, **_: False)
    assert main(["vault:import", "s.env"]) == 1
    assert [asked.dry_run for asked in node.asked] == [True, False, True]
    node.asked.clear()
    for more in (["--yes"], ["--dry-run"]):
        assert main(["vault:import", "s.env", *more]) == 0
    assert [asked.dry_run for asked in node.asked] == [False, True]


def test_no_secret_is_in_an_error_of_the_node(
    node: FakeOperators, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node.replies["vault:set"] = ZeroDivisionError(SECRET)
    monkeypatch.setattr("sys.stdin", Input(SECRET.encode()))
    assert main(["vault:set", "db"]) == 1
    assert SECRET not in "".join(capsys.readouterr())


def test_a_version_before_that_says_the_same_is_not_the_end(node: FakeOperators, capsys: Capture) -> None:
    node.replies["config:rollback"] = ReloadOutcome(3, False, ReloadPlan([]))
    assert said(capsys, "config:rollback").splitlines()[-1].endswith("`mag config:rollback VERSION` goes further back")
    assert "further back" not in said(capsys, "config:rollback", "2"), "who names a version has seen the others"
    node.replies["config:rollback"] = ReloadOutcome(3, False, ReloadPlan([], waiting=["kernel.data_dir"]))
    assert "further back" not in said(capsys, "config:rollback")
