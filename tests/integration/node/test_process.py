"""A node as a process: start, drain, force, kill, and two of them on one folder."""

from __future__ import annotations

import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.node.harness import DEADLINE_S, answer, environ, mag, up


def until(condition: Callable[[], bool]) -> None:
    """Look again and again; the test's own limit ends it."""
    ends_at_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_at_s
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_node(tmp_path: Path, number: signal.Signals) -> None:
    with up(cwd=tmp_path) as node:
        data_dir = Path(node.ready()["data_dir"])
        node.process.send_signal(number)
        assert node.end() == (0, "", "")
    assert (data_dir / "drained").exists()
    assert not (data_dir / "control.sock").exists()
    assert mag("status", cwd=tmp_path).returncode == 3


def test_a_second_signal_ends_a_node_whose_loop_is_stuck(tmp_path: Path) -> None:
    with up(cwd=tmp_path, components="Stubborn Parent") as node:
        child = int((Path(node.ready()["data_dir"]) / "child").read_text())
        watched = os.pidfd_open(child)
        node.process.send_signal(signal.SIGTERM)
        node.says("stopping")
        node.process.send_signal(signal.SIGTERM)
        assert node.end() == (130, "", "mag: forced to stop\n")
    try:
        assert select.select([watched], [], [], 10)[0], "the child outlives the node"
    finally:
        os.close(watched)


def test_a_closed_terminal_drains_the_node(tmp_path: Path) -> None:
    """A real one: the node is the foreground process of a pty whose other end goes away."""
    ours, theirs = pty.openpty()
    script = (
        "import fcntl, os, sys, termios\n"
        "os.setsid()\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'magmobo.cli.main', 'up', '--json'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environ("Steady"), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        printed = b""
        while b"admin_token" not in printed:
            assert select.select([ours], [], [], DEADLINE_S)[0], printed
            printed += os.read(ours, 65_536)
        os.close(ours)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "mag_data" / "drained").exists()


def test_a_hangup_without_a_terminal_reloads_the_settings(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is ignored stays so in a new program, as under nohup
    try:
        with up(cwd=tmp_path, MAG_KERNEL__WATCH_FILES="false") as node:
            data_dir = Path(node.ready()["data_dir"])
            (tmp_path / "mag.toml").write_text("[health]\ninterval_s = 7.5\n")
            node.process.send_signal(signal.SIGHUP)
            log = data_dir / "logs" / "mag.jsonl"
            until(lambda: '"changed_keys":["health.interval_s"]' in log.read_text())
            assert answer("config:show", "health.interval_s", cwd=tmp_path)["entries"][0]["value"] == 7.5
            assert node.process.poll() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_during_the_start_takes_everything_back(tmp_path: Path) -> None:
    with up(cwd=tmp_path, components="Steady Endless") as node:
        node.says("booting")
        assert answer("status", cwd=tmp_path)["state"] == "booting"
        node.process.send_signal(signal.SIGTERM)
        code, out, err = node.end()
    assert (code, out) == (130, "")
    assert "[MAG-CORE-019]" in err
    assert "Traceback" not in err
    assert (tmp_path / "mag_data" / "rolled_back").exists()


def test_a_node_that_was_killed_starts_again_as_the_same_node(tmp_path: Path) -> None:
    with up(cwd=tmp_path) as node:
        first = node.ready()
        node.process.kill()
        node.end()
    assert (tmp_path / "mag_data" / "control.sock").exists(), "nobody cleaned up, that is the point"
    assert mag("status", cwd=tmp_path).returncode == 3
    with up(cwd=tmp_path) as node:
        second = node.ready()
        assert answer("status", cwd=tmp_path)["state"] == "ready"
    assert second["instance_id"] == first["instance_id"]
    assert "admin_token" in first
    assert "admin_token" not in second


def test_two_nodes_on_one_folder(tmp_path: Path) -> None:
    with up(cwd=tmp_path) as node:
        first = node.ready()
        second = mag("up", cwd=tmp_path)
        assert second.returncode == 1
        assert f"another node (pid {first['pid']})" in second.stderr
        assert "[MAG-CORE-016]" in second.stderr
        assert "next: Stop it with `mag down`" in second.stderr
        assert answer("status", cwd=tmp_path)["state"] == "ready", "the first one is not disturbed"


def test_a_failed_start_shows_no_token_and_the_next_one_does(tmp_path: Path) -> None:
    failed = mag("up", cwd=tmp_path, components="Steady Failing")
    assert failed.returncode == 5
    assert failed.stdout == ""
    assert 'the node did not start (component "failing", boot): no luck today [MAG-TEST-001]' in failed.stderr
    assert failed.stderr.endswith("next: Try another day.\n")
    assert (tmp_path / "mag_data" / "drained").exists() is False
    with up(cwd=tmp_path) as node:
        assert len(node.ready()["admin_token"]) == 43


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('[steady]\ngreeting = ""', "steady.greeting"),
        ('[steady]\ngreting = "x"', "did you mean"),
        ("[kernel]\nenvironment = 3", "kernel.environment"),
        ("[kernel", "mag.toml"),
    ],
)
def test_a_mistake_in_the_settings_makes_nothing(tmp_path: Path, settings: str, expected: str) -> None:
    (tmp_path / "mag.toml").write_text(settings)
    done = mag("up", cwd=tmp_path)
    assert done.returncode == 5
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mag_data").exists()


def test_a_component_that_does_not_exist(tmp_path: Path) -> None:
    done = mag("up", cwd=tmp_path, components="NoSuch")
    assert done.returncode == 5
    assert "[MAG-CORE-017]" in done.stderr
    assert not (tmp_path / "mag_data").exists()


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "mag_data").write_text("")
    done = mag("up", cwd=tmp_path)
    assert (done.returncode, "[MAG-CORE-013]" in done.stderr) == (1, True)


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """As nobody when we are root: everything is imported first, because nobody may not read our Python."""
    script = (
        "import os, sys\n"
        "import resource, uvloop, magmobo.cli.up, magmobo.cli.main, magmobo.node.process\n"
        "import magmobo.kernel.config.validate, magmobo.kernel.spellings, tests.integration.node.parts\n"
        "if os.geteuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
        "sys.exit(magmobo.cli.main.main(['up', '--data-dir', '/mag_data']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd="/", env=environ("Steady"), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "mag: /mag_data cannot be written (permission denied) [MAG-CORE-012]" in done.stderr


def test_a_data_folder_deeper_than_a_socket_path_may_be(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    with up("--data-dir", str(deep), cwd=tmp_path) as node:
        node.ready()
        assert answer("status", "--data-dir", str(deep), cwd=tmp_path)["state"] == "ready"


def test_what_is_on_disk_is_private(tmp_path: Path) -> None:
    with up(cwd=tmp_path) as node:
        token = node.ready()["admin_token"]
        data_dir = tmp_path / "mag_data"
        for path in [data_dir, *data_dir.rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for path in data_dir.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), f"the admin token is in {path}"


def test_the_settings_of_a_file_reach_the_component(tmp_path: Path) -> None:
    (tmp_path / "mag.toml").write_text('[steady]\ngreeting = "from file"')
    with up(cwd=tmp_path) as node:
        assert node.ready()["examples"] == ["curl from file"]
