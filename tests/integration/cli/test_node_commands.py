"""Commands against a running node, from another process: answers, exit codes, the background, the banner."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.node.harness import DEADLINE_S, answer, environ, mag, up


@contextmanager
def background(cwd: Path, *arguments: str, components: str = "Steady", **more: str) -> Iterator[int]:
    """A node started with --background, stopped at the end; the pid."""
    done = mag("up", "--background", "--json", *arguments, cwd=cwd, components=components, **more)
    assert done.returncode == 0, done.stderr
    pid = int(json.loads(done.stdout)["pid"])
    watched = os.pidfd_open(pid)
    try:
        yield pid
    finally:
        if not select.select([watched], [], [], 0)[0]:
            os.kill(pid, signal.SIGTERM)
            assert select.select([watched], [], [], DEADLINE_S)[0], "it does not end"
        os.close(watched)


def test_status_of_a_node_that_is_well(tmp_path: Path) -> None:
    with background(tmp_path) as pid:
        status = mag("status", cwd=tmp_path)
        assert status.returncode == 0
        assert "http://127.0.0.1:1/rest/v1/" in status.stdout
        assert "\x1b" not in status.stdout
        found = answer("kernel", "status", cwd=tmp_path)
        assert list(found) == [
            "schema", "command", "instance_id", "state", "environment", "version", "uptime_s", "components",
        ]  # fmt: skip
        assert (found["command"], found["state"], found["environment"]) == ("kernel:status", "ready", "development")
        (component,) = found["components"]
        assert list(component) == ["name", "state", "health", "restarts", "since"]
        assert (component["name"], component["state"]) == ("steady", "running")
        down = mag("down", cwd=tmp_path)
        assert (down.returncode, down.stdout) == (0, f"the node (pid {pid}) has stopped\n")
        assert mag("kernel:status", cwd=tmp_path).returncode == 3
        assert mag("down", cwd=tmp_path).returncode == 3


def test_a_sick_component_is_exit_4_and_named(tmp_path: Path) -> None:
    with background(
        tmp_path, components="Steady Sick", MAG_HEALTH__INTERVAL_S="0.05", MAG_HEALTH__ON_UNHEALTHY="report"
    ):
        done = mag("kernel:status", cwd=tmp_path)
        while "is on fire" not in done.stdout:
            assert done.returncode in (0, 4)
            done = mag("kernel:status", cwd=tmp_path)
        assert done.returncode == 4
        assert mag("component", "list", cwd=tmp_path).returncode == 4
        listed = answer("component:list", cwd=tmp_path)
        assert {part["name"]: part["health"] for part in listed["components"]}["sick"] == "unhealthy"


def test_the_background_returns_when_ready_and_shows_the_banner(tmp_path: Path) -> None:
    done = mag("up", "--background", cwd=tmp_path)
    try:
        lines = done.stdout.splitlines()
        assert done.stderr == ""
        assert len(lines) <= 12
        assert re.fullmatch(r"MagMoBo \S+ is ready after \d+\.\d s", lines[0])
        assert re.search(r"^  token     [-\w]{43}  ", done.stdout, re.MULTILINE)
        assert "  stop      `mag down`" in lines
        assert "\x1b" not in done.stdout
    finally:
        assert mag("down", cwd=tmp_path).returncode == 0


def test_the_background_tells_why_it_failed_with_the_exit_code(tmp_path: Path) -> None:
    done = mag("up", "--background", cwd=tmp_path, components="Failing")
    assert (done.returncode, done.stdout) == (5, "")
    assert "no luck today [MAG-TEST-001]" in done.stderr
    assert done.stderr.endswith("next: Try another day.\n")


def test_the_background_tells_of_a_node_that_was_killed_while_it_started(tmp_path: Path) -> None:
    done = mag("up", "--background", cwd=tmp_path, components="Crashing")
    assert done.returncode == 1
    assert "killed by signal 9 while it started [MAG-CLI-002]" in done.stderr


def test_a_start_that_takes_too_long_is_ended_and_exit_7(tmp_path: Path) -> None:
    done = mag("up", "--background", "--timeout", "1.5", cwd=tmp_path, components="Endless")
    assert done.returncode == 7
    assert "[MAG-CORE-002]" in done.stderr
    assert (tmp_path / "mag_data" / "rolled_back").exists()
    assert mag("status", cwd=tmp_path).returncode == 3


def test_a_node_in_the_background_outlives_who_started_it_and_owns_no_terminal(tmp_path: Path) -> None:
    with background(tmp_path) as pid:
        assert os.getsid(pid) == pid
        targets = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
        output = str(tmp_path / "mag_data" / "logs" / "node.out")
        assert targets == ["/dev/null", output, output]


def test_a_password_on_the_command_line_does_not_stay_in_the_process_list(tmp_path: Path) -> None:
    """The list of components has no database, so the node refuses the setting; its arguments are recorded."""
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nopen({str(seen)!r}, 'a').write(' '.join(sys.orig_argv) + '\\n')"
    )
    dsn = "postgres://me:hunter2@localhost/db"
    path = f"{tmp_path}{os.pathsep}{environ('Steady')['PYTHONPATH']}"
    done = mag("up", dsn, "--background", cwd=tmp_path, PYTHONPATH=path)
    first, child = seen.read_text().splitlines()
    assert "hunter2" in first
    assert "--report-to" in child
    assert "hunter2" not in child
    assert done.returncode == 5
    assert "hunter2" not in done.stderr
    assert "magds" in done.stderr


def test_the_banner_of_a_terminal_has_colours_unless_refused(tmp_path: Path) -> None:
    for refused, expected in ((False, True), (True, False)):
        terminal, other_end = pty.openpty()
        more = {"NO_COLOR": "1"} if refused else {}
        node = subprocess.Popen(
            [sys.executable, "-m", "magmobo.cli.main", "up"], cwd=tmp_path, env=environ("Steady", TERM="xterm", **more),
            stdin=subprocess.DEVNULL, stdout=other_end, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(other_end)
        seen = b""
        try:
            while b"mag.jsonl" not in seen:
                assert select.select([terminal], [], [], DEADLINE_S)[0]
                seen += os.read(terminal, 4096)
        finally:
            node.terminate()
            node.wait(DEADLINE_S)
            os.close(terminal)
        assert (b"\x1b[" in seen) is expected


def test_a_reader_that_goes_away_does_not_end_the_node(tmp_path: Path) -> None:
    with up(cwd=tmp_path, components="Steady") as node:
        assert node.process.stdout is not None
        node.ready()
        node.process.stdout.close()
        assert answer("status", cwd=tmp_path)["state"] == "ready"
        node.process.terminate()
        assert node.process.wait(DEADLINE_S) == 0


def test_logs_are_shown_with_and_without_a_node(tmp_path: Path) -> None:
    assert "[MAG-CLI-006]" in mag("logs", cwd=tmp_path).stderr
    with background(tmp_path):
        pass
    shown = mag("logs", cwd=tmp_path)
    assert shown.returncode == 0
    assert re.search(r"info +kernel +ready", shown.stdout)
    lines = mag("logs", "--json", "--lines", "2", cwd=tmp_path).stdout.splitlines()
    assert len(lines) == 2
    assert json.loads(lines[-1])["event"] == "stopped"


def test_logs_follow_until_interrupted(tmp_path: Path) -> None:
    with background(tmp_path):
        follower = subprocess.Popen(
            [sys.executable, "-m", "magmobo.cli.main", "logs", "--follow", "--json"],
            cwd=tmp_path, env=environ("Steady"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert follower.stdout is not None
        try:
            assert any('"ready"' in line for line in follower.stdout)
            mag("down", cwd=tmp_path)
            assert any("told to stop" in line for line in follower.stdout)
        finally:
            follower.send_signal(signal.SIGINT)
            _, err = follower.communicate(timeout=DEADLINE_S)
    assert (follower.returncode, err.strip()) == (130, "")


@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--json"]])
def test_doctor_without_a_database_looks_at_the_folder(tmp_path: Path, words: list[str]) -> None:
    done = mag(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "mag_data is not there yet" in done.stdout
    assert not (tmp_path / "mag_data").exists()
    (tmp_path / "mag_data").write_text("")
    done = mag(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "is not a folder" in done.stdout


def test_detach_needs_a_database_and_a_stopped_node(tmp_path: Path) -> None:
    assert mag("detach", cwd=tmp_path).returncode == 2
    with background(tmp_path):
        done = mag("detach", "postgres://nobody@localhost/nothing", cwd=tmp_path)
        assert done.returncode == 1
        assert "[MAG-CLI-004]" in done.stderr
