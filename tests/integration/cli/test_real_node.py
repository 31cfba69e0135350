"""Every command against a node in a process of its own: looking, steering, auditing, and the archive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.cli.test_node_commands import background
from tests.integration.node.harness import DEADLINE_S, answer, environ, mag
from tests.unit.kernel.test_masking import PLACES, SECRETS

from magmobo.contracts import operations as ops

PARTS = "Steady Sick"
LOOKING = {
    "kernel:status": [], "kernel:blame": [], "kernel:events": [], "kernel:commands": [], "component:list": [],
    "component:show": ["steady"], "component:graph": [], "audit:tail": [], "config:show": ["health"],
    "config:diff": [], "config:history": [], "vault:list": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a node runs that tests may look at, and steer as long as they put it back."""
    place = tmp_path_factory.mktemp("node")
    with background(place, components=PARTS):
        yield place


def states(folder: Path) -> dict[str, str]:
    return {part["name"]: part["state"] for part in answer("component:list", cwd=folder)["components"]}


@pytest.mark.parametrize("command", LOOKING)
def test_json_is_the_published_reply(folder: Path, command: str) -> None:
    (kind,) = (kind for kind in ops.OPERATIONS if kind.name == command)
    done = mag(command, *LOOKING[command], "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found.pop("schema") == f"dev.magmobo.cli.{command.replace(':', '_')}.v1"
    assert found.pop("command") == command
    msgspec.convert(found, kind.reply, strict=True)


def test_a_status_says_where_the_metrics_are(folder: Path) -> None:
    url = answer("status", cwd=folder)["urls"]["metrics"]
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as page:
        assert b"# TYPE mag_" in page.read()


@pytest.mark.parametrize("command", LOOKING)
def test_text_is_text(folder: Path, command: str) -> None:
    done = mag(command, *LOOKING[command], cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.strip()


def test_a_component_is_steered_and_every_step_is_on_record(folder: Path) -> None:
    assert answer("component:restart", "steady", cwd=folder)["state"] == "running"
    assert answer("component:stop", "steady", cwd=folder)["state"] == "stopped"
    assert mag("kernel:status", cwd=folder).returncode == 4
    assert mag("component:show", "steady", cwd=folder).returncode == 4
    assert answer("component:start", "steady", cwd=folder)["state"] == "running"
    assert answer("component:disable", "steady", cwd=folder)["state"] == "disabled"
    assert answer("component:enable", "steady", cwd=folder)["state"] == "running"
    left = answer("component:unregister", "sick", cwd=folder)
    assert [part["name"] for part in left["components"]] == ["steady"]
    assert mag("component:show", "sick", cwd=folder).returncode == 2
    registered = answer("component:register", "tests.integration.node.parts:Sick", cwd=folder)
    assert (registered["name"], registered["state"]) == ("sick", "running")
    records = answer("audit:tail", "--lines", "100", cwd=folder)["records"]
    done = [record["action"] for record in records if record["actor"] == f"uid:{os.geteuid()}"]
    for action in ("restart", "stop", "start", "disable", "enable", "unregister", "register"):
        assert f"component.{action}" in done


@pytest.mark.parametrize("order", ["restart", "stop", "start", "disable", "enable"])
def test_a_dry_run_changes_nothing(folder: Path, order: str) -> None:
    before = answer("component:show", "steady", cwd=folder)
    done = mag(f"component:{order}", "steady", "--dry-run", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"would {order} steady")
    after = answer("component:show", "steady", cwd=folder)
    assert (after["status"]["since"], after["restarts"]) == (before["status"]["since"], before["restarts"])


def test_a_reset_boots_the_same_process_again(folder: Path) -> None:
    before = answer("kernel:status", cwd=folder)
    pid = (folder / "mag_data" / "node.lock").read_text()
    assert mag("kernel:reset", cwd=folder).returncode == 1
    done = mag("kernel:reset", "--yes", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    after = json.loads(done.stdout)
    assert (after["instance_id"], after["state"]) == (before["instance_id"], "ready")
    assert (folder / "mag_data" / "node.lock").read_text() == pid
    assert states(folder) == {"steady": "running", "sick": "running"}


def test_a_lower_role_is_denied_and_breakglass_is_on_record(folder: Path) -> None:
    denied = mag("component:restart", "steady", cwd=folder, MAG_ROLE="viewer")
    assert (denied.returncode, denied.stdout) == (6, "")
    assert "[MAG-SEC-001]" in denied.stderr
    assert mag("--role", "viewer", "kernel:status", cwd=folder).returncode == 0
    assert mag("--role", "viewer", "audit:tail", cwd=folder).returncode == 6, "it must not read the file instead"
    assert mag("--role", "viewer", "diagnostics:dump", cwd=folder).returncode == 6
    taken = mag("--role", "viewer", "--breakglass", "the site is down", "component:restart", "steady", cwd=folder)
    assert taken.returncode == 0
    records = answer("audit:tail", cwd=folder)["records"]
    (record,) = [record for record in records if record["action"] == "security.breakglass"]
    assert record["severity"] == "critical"
    assert "the site is down" in json.dumps(record["payload"])


@pytest.mark.parametrize("words", [["component:restart", "stedy"], ["component:show", "Not-A-Name"]])
def test_a_name_that_is_none_is_usage(folder: Path, words: list[str]) -> None:
    done = mag(*words, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")


def test_events_are_followed_as_they_happen(folder: Path) -> None:
    cursor = answer("kernel:events", cwd=folder)["cursor"]
    follower = subprocess.Popen(
        [sys.executable, "-m", "magmobo.cli.main", "kernel:events", "--follow", "--json", "--pattern", "component.*",
         "--after", str(cursor)],
        cwd=folder, env=environ(PARTS), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    try:
        json.loads(follower.stdout.readline())
        assert mag("component:restart", "steady", cwd=folder).returncode == 0
        seen: list[str] = []
        while "dev.magmobo.component.started.v1" not in seen:
            page: dict[str, Any] = json.loads(follower.stdout.readline())
            assert page.pop("schema") == "dev.magmobo.cli.kernel_events.v1"
            assert page.pop("command") == "kernel:events"
            seen += [event["type"] for event in msgspec.convert(page, ops.EventPage).events]
        assert all(name.startswith("dev.magmobo.component.") for name in seen)
    finally:
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=DEADLINE_S)
    assert (follower.returncode, err.strip()) == (130, "")


def test_who_stops_waiting_leaves_no_command_behind(folder: Path) -> None:
    """The node hears that its client has gone, and ends what it did for it."""
    waiting = subprocess.Popen(
        [sys.executable, "-m", "magmobo.cli.main", "kernel:events", "--follow", "--pattern", "config.*"],
        cwd=folder, env=environ(PARTS), stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_for(lambda: "control:leaving" in tasks(folder))
    finally:
        waiting.kill()
        waiting.communicate(timeout=DEADLINE_S)
    wait_for(lambda: tasks(folder).count("control:leaving") <= 1)


def tasks(folder: Path) -> str:
    """The tasks of the node; one of them is our own question."""
    path = folder / f"dump-{time.monotonic_ns()}.tar.gz"
    assert mag("diagnostics:dump", "--output", str(path), cwd=folder).returncode == 0
    return contents(path)["node/tasks.txt"]


def wait_for(condition: Any) -> None:
    ends_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_s


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read().decode() for name, file in found.items() if file is not None}


# ---------------------------------------------------------------- the audit log, with and without a node


def test_the_audit_log_is_read_whole_and_exported_without_a_node(tmp_path: Path) -> None:
    with background(tmp_path):
        assert mag("component:restart", "steady", cwd=tmp_path).returncode == 0
        assert answer("audit:verify", cwd=tmp_path)["ok"] is True
    offline = answer("audit:tail", cwd=tmp_path)
    msgspec.convert({key: offline[key] for key in ("records", "cursor")}, ops.AuditPage, strict=True)
    assert "component.restart" in [record["action"] for record in offline["records"]]
    assert mag("audit:tail", "--follow", cwd=tmp_path).returncode == 3
    whole = mag("audit:verify", cwd=tmp_path)
    assert (whole.returncode, whole.stdout[:5]) == (0, "whole")
    exported = mag("audit:export", "--output", "audit.jsonl", "--json", cwd=tmp_path)
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert json.loads(exported.stdout)["records"] == len(lines)
    assert mag("audit:export", cwd=tmp_path).stdout.encode().splitlines() == lines
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    (segment, *_) = sorted((tmp_path / "mag_data" / "audit").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b"component.restart", b"component.restorx"))
    broken = mag("audit:verify", cwd=tmp_path)
    assert (broken.returncode, broken.stdout[:6]) == (1, "BROKEN")
    assert answer("audit:verify", cwd=tmp_path)["ok"] is False
    kept = lines[:-2]
    segment.write_bytes(b"".join(line + b"\n" for line in kept))
    assert [record["seq"] for record in answer("audit:tail", "--lines", "1", cwd=tmp_path)["records"]] == [len(kept)]


# ---------------------------------------------------------------- the archive


def test_two_hundred_planted_secrets_are_in_no_part_of_the_archive(tmp_path: Path) -> None:
    """In the settings, the environment, the logs, the console output, an event's text and the audit log."""
    settings = [secret for place, secret in SECRETS if place.startswith("known")]
    texts = [PLACES[place](secret) for place, secret in SECRETS]
    (tmp_path / "mag.toml").write_text(f'[admin]\ntoken_sha256 = "{"a1" * 32}"\n')
    (tmp_path / "mag.d").mkdir()
    planted = {f"MAG_TEST_SECRET_{number}": secret for number, secret in enumerate(settings)}
    with background(tmp_path):
        data_dir = tmp_path / "mag_data"
        with (data_dir / "logs" / "mag.jsonl").open("a") as log:
            for text in texts:
                log.write(json.dumps({"level": "error", "event": text, "error": {"text": text}}) + "\n" + text + "\n")
        (data_dir / "logs" / "node.out").write_text("\n".join(texts))
        (data_dir / "logs" / "mag-crash-x.txt").write_text("\n".join(texts))
        for text in texts[::20]:
            assert mag("component:show", text[:3000], cwd=tmp_path).returncode != 0
            mag("--role", "viewer", "--breakglass", text[:400], "component:restart", "steady", cwd=tmp_path)
        done = mag("diagnostics:dump", "--output", "dump.tar.gz", cwd=tmp_path, **planted)
        assert (done.returncode, done.stderr) == (0, "")
        found = contents(tmp_path / "dump.tar.gz")
    assert len(SECRETS) == 200
    assert found.keys() >= {"node/tasks.txt", "node/metrics.txt", "node/events.jsonl", "log.jsonl", "crash-1.txt"}
    assert "***" in found["log.jsonl"]
    for name, text in found.items():
        assert "a1a1a1" not in text, name
        for _, secret in SECRETS:
            assert secret not in text, (name, secret)
            assert json.dumps(secret)[1:-1] not in text, (name, secret)


def test_an_archive_of_a_node_that_hangs_says_so(tmp_path: Path) -> None:
    with background(tmp_path) as pid:
        os.kill(pid, signal.SIGSTOP)
        try:
            done = mag("diagnostics:dump", "--output", "dump.tar.gz", "--timeout", "0.2", cwd=tmp_path)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert done.returncode == 0
        assert "[MAG-CORE-002]" in done.stderr
    found = contents(tmp_path / "dump.tar.gz")
    assert "MAG-CORE-002" in found["README.txt"]
    assert "ready" in found["log.jsonl"]
