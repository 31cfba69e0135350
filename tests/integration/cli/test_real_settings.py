"""`config:*` and `vault:*` against a node in a process of its own: what is said is what the node then does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cli.test_node_commands import background
from tests.integration.node.harness import DEADLINE_S, answer, environ, mag

FILE = "[kernel]\nwatch_files = false\n\n[steady]\ngreeting = {greeting!r}\n"
SECRET = "correct horse battery staple"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a node runs whose files only a command makes it read."""
    say(tmp_path, "hello")
    with background(tmp_path):
        yield tmp_path


def say(folder: Path, greeting: str, more: str = "") -> None:
    (folder / "mag.toml").write_text(FILE.format(greeting=greeting) + more)


def greeting(folder: Path) -> str:
    """As the component says it, which has read its section."""
    (example,) = answer("status", cwd=folder)["examples"]
    return str(example).removeprefix("curl ")


def entry(folder: Path, key: str) -> dict[str, Any]:
    (found,) = answer("config:show", key, cwd=folder)["entries"]
    return dict(found)


def store(folder: Path, name: str, value: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "magmobo.cli.main", "vault:set", name],
        cwd=folder, env=environ("Steady"), capture_output=True, text=True, timeout=DEADLINE_S, check=False, input=value,
    )  # fmt: skip


def test_an_edit_is_planned_applied_listed_and_taken_back(folder: Path) -> None:
    assert mag("config:diff", cwd=folder).stdout == "no setting differs\n"
    say(folder, "good day")
    plan = mag("config:diff", cwd=folder).stdout
    assert 'steady.greeting  "hello" -> "good day"  component restart  mag.toml line 5' in plan
    assert "restart  steady" in plan
    assert "nothing was changed" in mag("config:reload", "--dry-run", cwd=folder).stdout
    assert greeting(folder) == "hello"
    done = mag("config:reload", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert greeting(folder) == "good day"
    now, before = answer("config:history", cwd=folder)["versions"]
    assert (now["running"], now["trigger"], now["changed_keys"]) == (True, "command", ["steady.greeting"])
    assert (before["running"], before["trigger"]) == (False, "boot")
    assert mag("config:rollback", cwd=folder).returncode == 0
    assert greeting(folder) == "hello"
    assert answer("config:show", cwd=folder)["held"] is True
    assert mag("config:rollback", str(now["version"]), "--yes", cwd=folder).returncode == 0
    assert greeting(folder) == "good day"


def test_a_mistake_is_five_and_the_running_settings_stay(folder: Path) -> None:
    say(folder, "x" * 21, "[helth]\n")
    for command in ("config:diff", "config:reload", "config:validate"):
        done = mag(command, cwd=folder)
        assert done.returncode == 5, command
        text = done.stdout + done.stderr
        assert "steady.greeting" in text
        assert 'did you mean "health"?' in text
        assert "mag.toml line 5" in text
    assert greeting(folder) == "hello"
    (folder / "mag.toml").unlink()
    gone = mag("config:reload", cwd=folder)
    assert gone.returncode == 5
    assert "--accept-removed" in gone.stderr
    assert mag("config:reload", "--accept-removed", cwd=folder).returncode == 0
    assert entry(folder, "steady.greeting")["origin"] == "default"


def test_a_key_is_set_shown_and_unset(folder: Path) -> None:
    assert mag("config:set", "steady.greeting", "bye", cwd=folder).returncode == 0
    assert greeting(folder) == "bye"
    assert (entry(folder, "steady.greeting")["layer"], entry(folder, "steady.greeting")["expires_at"]) == (
        "override",
        "",
    )
    assert mag("config:set", "steady.greeting", "soon", "--ttl", "1h", cwd=folder).returncode == 0
    shown = entry(folder, "steady.greeting")
    assert (shown["value"], shown["layer"]) == ("soon", "patch")
    assert shown["expires_at"]
    wrong = mag("config:set", "health.failures", "many", cwd=folder)
    assert (wrong.returncode, wrong.stdout) == (5, "")
    assert "expected a whole number" in wrong.stderr
    assert mag("config:set", "steady.greting", "x", cwd=folder).returncode == 5
    assert mag("config:unset", "steady.greeting", cwd=folder).returncode == 0
    assert greeting(folder) == "hello"
    assert mag("config:unset", "steady.greeting", cwd=folder).returncode != 0


def test_a_lower_role_looks_and_changes_nothing(folder: Path) -> None:
    assert mag("config:show", cwd=folder, MAG_ROLE="developer").returncode == 0
    assert mag("config:show", cwd=folder, MAG_ROLE="viewer").returncode == 6
    for words in (["config:set", "steady.greeting", "x"], ["config:reload"], ["vault:rotate", "db", "--random"]):
        denied = mag(*words, cwd=folder, MAG_ROLE="developer")
        assert (denied.returncode, denied.stdout) == (6, ""), words
    assert greeting(folder) == "hello"


def test_secrets_go_in_are_used_and_never_come_out(folder: Path) -> None:
    done = store(folder, "redis", SECRET)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stored redis, version 1\n", "")
    say(folder, "hello", '[cache]\nredis_url = "vault:redis"\n')
    reloaded = mag("config:reload", cwd=folder)
    assert reloaded.returncode == 0, reloaded.stderr
    assert "waiting  cache.redis_url" in reloaded.stdout
    (use,) = answer("vault:list", cwd=folder)["secrets"]
    assert (use["info"]["name"], use["keys"]) == ("redis", ["cache.redis_url"])
    assert mag("vault:remove", "redis", "--yes", cwd=folder).returncode == 1
    assert mag("config:set", "cache.redis_url", SECRET, cwd=folder).returncode == 5
    told = [mag(*words, cwd=folder) for words in (
        ["config:show", "--origin"], ["config:history"], ["vault:list"], ["audit:tail"], ["kernel:events"],
        ["config:validate"], ["config:diff", "--version", "1"], ["vault:rotate", "redis", "--random"], ["vault:rekey"],
    )]  # fmt: skip
    assert [one.returncode for one in told] == [0] * len(told), [one.stderr for one in told]
    assert not [one.args for one in told if SECRET in one.stdout + one.stderr]
    assert SECRET not in (folder / "mag_data" / "logs" / "mag.jsonl").read_text()


def test_what_was_stored_at_rest_is_there_after_the_start(tmp_path: Path) -> None:
    say(tmp_path, "hello")
    assert store(tmp_path, "redis", SECRET).returncode == 0
    with background(tmp_path):
        (use,) = answer("vault:list", cwd=tmp_path)["secrets"]
        assert use["info"]["version"] == 1
        assert answer("vault:rotate", "redis", "--random", cwd=tmp_path)["info"]["version"] == 2
    assert [use["info"]["version"] for use in answer("vault:list", cwd=tmp_path)["secrets"]] == [2]


@pytest.mark.parametrize("how", [["--background"], []])
def test_a_start_that_fails_by_what_was_set_at_run_time_says_the_way_out(tmp_path: Path, how: list[str]) -> None:
    say(tmp_path, "hello")
    elsewhere = "192.0.2.1"  # of a network that is nobody's
    with background(tmp_path):
        assert mag("config:set", "admin.host", elsewhere, cwd=tmp_path).returncode == 0
        assert mag("config:set", "steady.greeting", "kept", cwd=tmp_path).returncode == 0
    failed = mag("up", *how, cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (1, "")
    step = failed.stderr.splitlines()[-1]
    assert "What `mag config:set` set counts above every file: admin.host, steady.greeting." in step
    assert "`mag up --safe`" in step
    with background(tmp_path, "--safe"):
        assert mag("config:unset", "admin.host", cwd=tmp_path).returncode == 0
    with background(tmp_path):
        assert greeting(tmp_path) == "kept", "of the other keys nothing was forgotten"


def test_a_start_that_fails_with_nothing_set_at_run_time_blames_no_such_thing(tmp_path: Path) -> None:
    (tmp_path / "mag.toml").write_text('[admin]\nhost = "192.0.2.1"\n')
    failed = mag("up", cwd=tmp_path)
    assert failed.returncode == 1
    assert "config:set" not in failed.stderr
