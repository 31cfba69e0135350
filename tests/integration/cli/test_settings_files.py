"""Settings files without a node: checked, compared and described; and the vault of a folder while no node runs."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cli.test_settings_and_secrets import Input

from magmobo.admin.data_folder import DataFolder, NodeLock
from magmobo.cli.main import main
from magmobo.kernel.config.sealing import Sealer
from magmobo.kernel.config.source import Runtime, RuntimeSetting
from magmobo.kernel.config.version_folder import VersionFolder

Capture = pytest.CaptureFixture[str]
SECRET = "correct horse battery staple"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("MAG_")]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setattr("sys.stdin", Input())
    return tmp_path


def write(**files: str) -> None:
    """`mag` is mag.toml, `mag_x` mag.x.toml, `secrets_x` secrets/x.toml."""
    for name, text in files.items():
        kind, _, environment = name.partition("_")
        path = Path("secrets", f"{environment}.toml") if kind == "secrets" else Path(f"{name.replace('_', '.')}.toml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)


def said(capsys: Capture, *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert not err, err
    return out


def told(capsys: Capture, *words: str, code: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(said(capsys, *words, "--json", code=code))
    return answer


# ---------------------------------------------------------------- config:validate


def test_no_files_are_no_mistake(capsys: Capture, place: Path) -> None:
    assert "nothing but defaults" in said(capsys, "config:validate")
    answer = told(capsys, "config", "validate")
    assert answer == {
        "schema": "dev.magmobo.cli.config_validate.v1", "command": "config:validate", "ok": True,
        "environment": "development", "problems": [], "sources": [], "notes": [],
    }  # fmt: skip
    assert not list(place.iterdir()), "checking makes nothing"


def test_every_mistake_is_named_at_once_with_file_and_line(capsys: Capture) -> None:
    write(mag='[magds]\ndns = "x"\n[health]\n\ninterval_s = "soon"\n', mag_production="[listner]\nport = 1\n")
    text = said(capsys, "config:validate", "--environment", "production", code=5)
    assert text.startswith("FAIL  3 mistakes in the settings for production\n")
    assert 'magds.dns is unknown; did you mean "dsn"? (mag.toml line 2)' in text
    assert 'health.interval_s = "soon": expected a number' in text
    assert "(mag.toml line 5)" in text
    assert 'did you mean "listener"?' in text
    assert "(mag.production.toml line " in text
    assert "next: " in text
    answer = told(capsys, "config:validate", code=5)
    assert (answer["ok"], answer["environment"], len(answer["problems"])) == (False, "development", 2)
    assert answer["sources"] == ["mag.toml"]


@pytest.mark.parametrize("content", [b"", b"[kernel\n", b"\xff", b"a = 1\na = 2\n", b'[kernel]\nenvironment = "No"\n'])
def test_a_file_that_cannot_be_read_is_one_mistake(capsys: Capture, place: Path, content: bytes) -> None:
    (place / "mag.toml").write_bytes(content)
    answer = told(capsys, "config:validate", code=5)
    assert len(answer["problems"]) == 1
    assert "mag.toml" in answer["problems"][0]
    assert said(capsys, "config:validate", code=5).startswith("FAIL  1 mistake in the settings\n")


def test_another_file_stands_in(capsys: Capture, place: Path) -> None:
    (place / "other.toml").write_text("[health]\ninterval_s = 0\n")
    assert told(capsys, "config:validate", "--config", "other.toml", code=5)["problems"]
    assert told(capsys, "config:validate", "--config", "none.toml", code=5)["problems"]


def test_what_secrets_refer_to_is_followed_but_into_the_vault(
    capsys: Capture, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(mag='[magds]\ndsn = "file:dsn"\n[admin]\ntoken_sha256 = "vault:token"\n[cache]\nredis_url = "env:REDIS"\n')
    problems = told(capsys, "config:validate", code=5)["problems"]
    assert len(problems) == 2
    assert any("magds.dsn: file:dsn cannot be followed" in problem for problem in problems)
    assert any("cache.redis_url: env:REDIS cannot be followed" in problem for problem in problems)
    (place / "dsn").write_text(f"host=x password={SECRET}")
    monkeypatch.setenv("REDIS", f"redis://:{SECRET}@h")
    answer = told(capsys, "config:validate")
    assert answer["notes"] == ["admin.token_sha256 takes vault:token; whether the vault holds it was not looked at"]
    assert not (place / "mag_data").exists()


def test_the_vault_cannot_keep_what_opens_it(capsys: Capture) -> None:
    write(mag='[vault]\nkey = "vault:key"\n')
    assert "the vault cannot keep what opens it" in told(capsys, "config:validate", code=5)["problems"][0]


def test_a_secrets_file_that_others_read_is_a_mistake(capsys: Capture, place: Path) -> None:
    write(secrets_development=f'[magds]\ndsn = "host=x password={SECRET}"\n')
    assert told(capsys, "config:validate")["sources"] == ["secrets/development.toml"]
    (place / "secrets" / "development.toml").chmod(0o640)
    assert "secrets/development.toml" in told(capsys, "config:validate", code=5)["problems"][0]


def test_no_mistake_shows_a_secret(capsys: Capture) -> None:
    write(mag=f'[magds]\ndsn = ["{SECRET}"]\npassword = "{SECRET}"\n[admin]\ntoken_sha256 = "{SECRET}"\n')
    for more in ([], ["--json"]):
        text = said(capsys, "config:validate", *more, code=5)
        assert SECRET not in text
    assert main(["config:diff", "--to", "x"]) == 5
    assert SECRET not in "".join(capsys.readouterr())


def test_a_component_that_cannot_be_had_is_told_as_at_the_start(capsys: Capture) -> None:
    write(mag='[kernel]\ncomponents = ["nonsense:None"]\n')
    assert main(["config:validate"]) == 5
    assert "nonsense:None" in capsys.readouterr().err


# ---------------------------------------------------------------- config:diff


def test_two_environments_are_compared(capsys: Capture) -> None:
    write(
        mag='[magds]\ndsn = "host=a"\n[health]\ninterval_s = 5\n',
        mag_production='[magds]\ndsn = "vault:dsn"\n[listener]\nport = 80\n',
        mag_test="[health]\ninterval_s = 9\n",
    )
    text = said(capsys, "config:diff", "--from", "development", "--to", "production")
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["from", "development:", "mag.toml"]
    assert rows[1] == ["to", "production:", "mag.toml,", "mag.production.toml"]
    assert rows[2] == ["2", "differences"]
    assert rows[3][:4] == ["listener.port", "8787", "->", "80"]
    assert rows[4][0] == "magds.dsn"
    assert text.count("mag.production.toml line") == 2
    assert "kernel.environment" not in text
    back = told(capsys, "config:diff", "--from", "production", "--to", "test")
    assert {change["key"]: (change["old"], change["new"]) for change in back["changes"]} == {
        "listener.port": (80, 8787), "magds.dsn": ("***", "***"), "health.interval_s": (5.0, 9.0),
    }  # fmt: skip
    assert (back["from"]["environment"], back["to"]["environment"]) == ("production", "test")
    assert back["live"] == back["restarts"] == back["waiting"] == []


@pytest.mark.parametrize("words", [["--to", "production"], ["--from", "production"]])
def test_one_side_is_the_environment_that_counts_here(capsys: Capture, words: list[str]) -> None:
    write(mag='[kernel]\nenvironment = "test"\n', mag_production="[health]\ninterval_s = 5\n")
    answer = told(capsys, "config:diff", *words)
    assert {answer["from"]["environment"], answer["to"]["environment"]} == {"test", "production"}
    assert [change["key"] for change in answer["changes"]] == ["health.interval_s"]


def test_what_this_machine_says_hides_no_difference_and_makes_none(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(mag="[health]\ninterval_s = 5\n", mag_production="[health]\ninterval_s = 6\n")
    monkeypatch.setenv("MAG_HEALTH__INTERVAL_S", "7")
    monkeypatch.setenv("MAG_HEALTH__TIMEOUT_S", "3")
    (change,) = told(capsys, "config:diff", "--to", "production")["changes"]
    assert (change["key"], change["old"], change["new"]) == ("health.interval_s", 5.0, 6.0)


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("vault:a", "vault:a", False),
        ("vault:a", "vault:b", True),
        ("vault:a", "vault:a@2", True),
        ("file:/nowhere/a", "file:/nowhere/b", True),
        ("env:NOT_SET", "env:NOT_SET", False),
        (SECRET, SECRET[:-1], True),
    ],
)
def test_secrets_differ_by_what_they_refer_to(capsys: Capture, one: str, other: str, differ: bool) -> None:
    write(mag_a=f'[cache]\nredis_url = "{one}"\n', mag_b=f'[cache]\nredis_url = "{other}"\n')
    text = said(capsys, "config:diff", "--from", "a", "--to", "b")
    assert ("cache.redis_url  changed" in text) is differ
    assert SECRET[:-1] not in text


def test_environments_that_do_not_differ_say_so(capsys: Capture) -> None:
    text = said(capsys, "config:diff", "--from", "a", "--to", "b")
    assert text.splitlines() == ["from a: nothing but defaults", "to   b: nothing but defaults", "no setting differs"]


def test_an_environment_with_a_mistake_is_no_comparison(capsys: Capture) -> None:
    write(mag_production="[health]\ninterval_s = -1\n")
    assert main(["config:diff", "--to", "production"]) == 5
    assert "health.interval_s" in capsys.readouterr().err
    assert main(["config:diff", "--to", "Not A Name"]) == 5


@pytest.mark.parametrize("more", [["--version", "3"], ["--accept-removed"]])
def test_a_comparison_of_files_is_no_question_to_a_node(capsys: Capture, more: list[str]) -> None:
    assert main(["config:diff", "--to", "production", *more]) == 2
    assert "leave out" in capsys.readouterr().err


# ---------------------------------------------------------------- config:schema


def test_the_schema_is_of_every_section_here(capsys: Capture, place: Path) -> None:
    document = json.loads(said(capsys, "config:schema"))
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"kernel", "magds", "listener", "vault"} <= document["properties"].keys()
    assert told(capsys, "config:schema")["document"] == document
    assert "sections in s.json" in said(capsys, "config:schema", "--output", "s.json")
    assert json.loads((place / "s.json").read_text()) == document
    assert told(capsys, "config:schema", "--output", "t.json")["file"] == str(place / "t.json")
    assert main(["config:schema", "--output", "s.json"]) == 2
    assert "[MAG-CLI-007]" in capsys.readouterr().err


def test_a_component_of_the_user_is_in_the_schema(capsys: Capture) -> None:
    write(mag='[kernel]\ncomponents = ["tests.integration.node.parts:Steady"]\n')
    assert "magds" not in json.loads(said(capsys, "config:schema"))["properties"]


# ---------------------------------------------------------------- the vault while no node runs


def store(capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str, value: str = SECRET) -> dict[str, Any]:
    monkeypatch.setattr("sys.stdin", Input(value.encode()))
    return told(capsys, "vault:set", name)


def uses(answer: Mapping[str, Any]) -> dict[str, list[str]]:
    return {use["info"]["name"]: use["keys"] for use in answer["secrets"]}


def test_a_secret_is_stored_before_the_first_start(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    assert told(capsys, "vault:list")["secrets"] == []
    assert not (place / "mag_data").exists(), "looking makes nothing"
    write(mag='[magds]\ndsn = "postgres://app:${vault:db}@h/d"\n')
    stored = store(capsys, monkeypatch, "db")
    assert (stored["info"]["version"], stored["reloaded"]) == (1, [])
    assert told(capsys, "vault:rotate", "db", "--random")["info"]["version"] == 2
    assert told(capsys, "vault:rotate", "db", "--version", "1")["info"]["version"] == 3
    (place / "more.env").write_text("MAIL=x\nDB=other\n")
    (place / "more.env").chmod(0o600)
    assert told(capsys, "vault:import", "more.env", "--dry-run")["added"] == ["mail"]
    report = told(capsys, "vault:import", "more.env")
    assert (report["added"], report["changed"]) == (["mail"], ["db"])
    assert "2 secrets encrypted under a new key" in said(capsys, "vault:rekey")
    assert uses(told(capsys, "vault:list")) == {"db": ["magds.dsn"], "mail": []}
    assert uses(told(capsys, "vault:remove", "mail", "--yes")) == {"db": ["magds.dsn"]}


def test_a_secret_in_use_is_kept_and_settings_that_are_wrong_may_use_any(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(capsys, monkeypatch, "db")
    write(mag='[magds]\ndsn = "vault:db"\n')
    assert main(["vault:remove", "db", "--yes"]) == 1
    assert "magds.dsn" in capsys.readouterr().err
    write(mag='[magds]\ndsn = "vault:other"\nnonsense = 1\n')
    assert main(["vault:remove", "db", "--yes"]) == 5
    assert "magds.nonsense" in capsys.readouterr().err
    assert uses(told(capsys, "vault:list")) == {"db": []}, "a mistake elsewhere keeps nobody from looking"


@pytest.mark.parametrize("role", ["viewer", "developer", "operator"])
def test_the_vault_at_rest_asks_for_the_same_rights(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    store(capsys, monkeypatch, "db")
    monkeypatch.setenv("MAG_ROLE", role)
    monkeypatch.setattr("sys.stdin", Input(b"x"))
    assert main(["vault:set", "db"]) == 6
    assert "[MAG-SEC-001]" in capsys.readouterr().err
    assert main(["vault:list"]) == (6 if role == "viewer" else 0)
    monkeypatch.delenv("MAG_ROLE")
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", Input(b"x"))
    assert main(["--role", role, "--breakglass", "fire", "vault:set", "db"]) == 0


def test_every_step_at_rest_is_on_record_without_the_secret(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    store(capsys, monkeypatch, "db")
    said(capsys, "vault:rotate", "db", "--random")
    records = told(capsys, "audit:tail")["records"]
    written = [record for record in records if record["actor"] == f"uid:{os.geteuid()}"]
    intents = [record["action"] for record in written if record["payload"]["phase"] == "intent"]
    assert intents == ["secret.write", "secret.rotate"]
    assert told(capsys, "audit:verify")["ok"] is True
    for path in (place / "mag_data").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_folder_in_use_is_left_alone(capsys: Capture, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    folder = DataFolder(place / "mag_data")
    folder.claim()
    lock = NodeLock(folder)
    lock.acquire()
    try:
        monkeypatch.setattr("sys.stdin", Input(b"x"))
        assert main(["vault:set", "db"]) == 1
        assert "[MAG-CORE-016]" in capsys.readouterr().err
    finally:
        lock.release()


def test_the_key_of_the_vault_comes_from_where_the_settings_say(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    write(mag='[vault]\nkey = "file:key"\n')
    (place / "key").write_text("0" * 64)
    store(capsys, monkeypatch, "db")
    assert not (place / "mag_data" / "secrets" / "vault.key").exists()
    (place / "key").write_text("1" * 64)
    assert main(["vault:rotate", "db", "--random"]) == 1
    assert "[MAG-VAULT-011]" in capsys.readouterr().err
    (place / "key").unlink()
    assert main(["vault:list"]) == 5
    assert "vault.key" in capsys.readouterr().err


def test_a_secret_that_is_not_there_is_named(capsys: Capture) -> None:
    assert main(["vault:rotate", "db", "--random"]) == 1
    assert '"db"' in capsys.readouterr().err
    assert main(["vault:remove", "No Name", "--yes"]) == 2


# ---------------------------------------------------------------- what was probably overlooked


def test_a_mistyped_environment_is_said_where_settings_are_checked_and_compared(capsys: Capture, place: Path) -> None:
    write(mag="[listener]\nport = 80\n", mag_production="[listener]\nport = 443\n")
    note = "note: no mag.prodution.toml is here, so nothing is set for prodution alone; did you mean production?\n"
    assert note in said(capsys, "config:validate", "--environment", "prodution")
    assert said(capsys, "config:diff", "--from", "development", "--to", "prodution").startswith(note)
    assert told(capsys, "config:validate", "--environment", "production")["notes"] == []


def test_a_mistake_does_not_hide_a_variable_that_sets_nothing(
    capsys: Capture, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(mag="[listener]\nport = 'x'\n")
    monkeypatch.setenv("MAG_ENVIRONMENT", "production")
    assert "MAG_KERNEL__ENVIRONMENT" in said(capsys, "config:validate", code=5)


def test_what_was_set_at_run_time_is_said_to_stand_above_the_files(capsys: Capture, place: Path) -> None:
    folder = Path("mag_data", "config")
    folder.mkdir(parents=True)
    versions = VersionFolder(folder, sealer=Sealer(Path("mag_data/secrets/config.key")), keep=lambda: 1)
    runtime = Runtime({"admin.host": RuntimeSetting("10.9.9.9", "uid:0", 1.0)})
    asyncio.run(versions.keep_runtime(runtime, None))
    (note,) = told(capsys, "config:validate")["notes"]
    assert note == "`mag config:set` set above these files, and not looked at: admin.host"
    (folder / "runtime.json").write_text("{")
    (note,) = told(capsys, "config:validate")["notes"]
    assert note.startswith("what was set at run time was not looked at: ")
    assert not Path("mag_data/secrets").exists()
