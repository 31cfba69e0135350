"""What only shows when a whole node runs: orders and signals at awkward moments, full disks, odd data folders."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.integration.node.harness import answer, heard, mag, manager, up
from tests.integration.node.parts import Steady

from magmobo.contracts.errors import ConfigError
from magmobo.kernel.errors import BootFailed
from magmobo.testing.harness import footprint, make_config, make_kernel, running_kernel


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def admin_url(status: dict[str, Any]) -> str:
    return str(status["urls"]["metrics"]).removesuffix("/metrics")


def fill_the_disk(process: subprocess.Popen[str]) -> None:
    """No file of this process may grow any more: what a full disk is to it."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


# ---------------------------------------------------------------- a disk that is full


def test_a_node_whose_disk_is_full_can_be_looked_at_and_stopped(tmp_path: Path) -> None:
    with up(cwd=tmp_path) as node:
        node.ready()
        fill_the_disk(node.process)
        refused = mag("component:disable", "steady", cwd=tmp_path)
        assert (refused.returncode, "[MAG-AUDIT-001]" in refused.stderr) == (1, True)
        status = answer("status", cwd=tmp_path)
        assert [one["state"] for one in status["components"]] == ["running"]
        assert any("audit log" in notice for notice in status["notices"]), status["notices"]
        stopped = mag("down", cwd=tmp_path)
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert node.end() == (0, "", "")
    assert (tmp_path / "mag_data" / "drained").exists()
    with up(cwd=tmp_path) as node:  # and there is room again
        assert [one["state"] for one in node.ready()["components"]] == ["running"]


def test_a_node_whose_disk_is_full_can_be_stopped_by_a_signal(tmp_path: Path) -> None:
    with up(cwd=tmp_path) as node:
        node.ready()
        fill_the_disk(node.process)
        node.process.send_signal(signal.SIGTERM)
        assert node.end() == (0, "", "")


# ---------------------------------------------------------------- odd folders


@pytest.mark.parametrize(("part", "code"), [("state", "MAG-STATE-001"), ("audit", "MAG-AUDIT-001")])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_part_of_the_data_folder_that_is_no_folder(tmp_path: Path, part: str, code: str, kind: str) -> None:
    data_dir = tmp_path / "mag_data"
    data_dir.mkdir(mode=0o700)
    (data_dir / "node.lock").touch()
    if kind == "file":
        (data_dir / part).write_text("mine")
    else:
        (data_dir / part).symlink_to(tmp_path / "nowhere")
    done = mag("up", cwd=tmp_path)
    assert done.returncode == 1
    assert f"what is called {part} in the data folder is no folder [{code}]" in done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path) not in done.stderr.partition("next:")[0]
    if kind == "file":
        assert (data_dir / part).read_text() == "mine"


def test_the_parts_may_be_links_to_another_disk(tmp_path: Path) -> None:
    data_dir, other = tmp_path / "mag_data", tmp_path / "disk"
    data_dir.mkdir(mode=0o700)
    (data_dir / "node.lock").touch()
    other.mkdir()
    for part in ("state", "audit"):
        (other / part).mkdir()
        (data_dir / part).symlink_to(other / part)
    with up(cwd=tmp_path) as node:
        node.ready()
    for path in other.glob("*/*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} can be read by others"


# ---------------------------------------------------------------- orders at awkward moments


def test_a_stop_while_the_node_boots_is_answered_and_takes_everything_back(tmp_path: Path) -> None:
    with up(cwd=tmp_path, components="Steady Endless") as node:
        node.says("booting")
        for order in (["component:restart", "steady"], ["component:disable", "steady"], ["kernel:reset", "--yes"]):
            refused = mag(*order, cwd=tmp_path)
            assert refused.returncode == 1, order
            assert "ready" in refused.stderr, refused.stderr
        assert mag("down", cwd=tmp_path).returncode == 0
        code, _, err = node.end()
    assert (code, "[MAG-CORE-019]" in err) == (130, True)
    assert (tmp_path / "mag_data" / "rolled_back").exists()
    with up(cwd=tmp_path) as node:
        assert [one["state"] for one in node.ready()["components"]] == ["running"], "nothing was disabled"


@pytest.mark.parametrize("how", ["signal", "down"])
def test_a_stop_while_the_node_resets_ends_it_in_order(tmp_path: Path, how: str) -> None:
    hears, patient = str(tmp_path / "notify.sock"), {"MAG_KERNEL__SHUTDOWN_TIMEOUT_S": "60"}
    with manager(hears) as door, up(cwd=tmp_path, components="Steady SlowStop", NOTIFY_SOCKET=hears, **patient) as node:
        node.ready()
        asked: dict[str, subprocess.CompletedProcess[str]] = {}

        def ask(*command: str) -> None:
            asked[command[0]] = mag(*command, cwd=tmp_path)

        asking = [threading.Thread(target=ask, args=command) for command in (("kernel:reset", "--yes"), ("down",))]
        asking[0].start()
        node.says("stopping slowly")
        assert answer("status", cwd=tmp_path)["state"] == "booting"
        if how == "signal":
            node.process.send_signal(signal.SIGTERM)
        else:
            asking[1].start()
        while heard(door) != "STOPPING=1":
            pass  # the door has a deadline
        (tmp_path / "mag_data" / "go").touch()
        code, _, err = node.end()
        for one in asking:
            if one.ident is not None:
                one.join()
    assert (code, "Traceback" in err) == (0, False), err
    assert "stopped slowly" in err, "its drain was cut off"
    assert asked["kernel:reset"].returncode != 0
    assert how == "signal" or asked["down"].returncode == 0
    assert (tmp_path / "mag_data" / "drained").exists()


def test_resets_one_after_the_other_and_what_the_probes_say(tmp_path: Path) -> None:
    with up(cwd=tmp_path) as node:
        status = node.ready()
        url = admin_url(status)
        assert get(f"{url}/readyz") == (200, '{"state":"ready"}')
        for _ in range(3):
            assert mag("kernel:reset", "--yes", cwd=tmp_path).returncode == 0
        for path in ("/livez", "/readyz", "/startupz"):
            assert get(url + path)[0] == 200, path
        told = answer("kernel:status", cwd=tmp_path)
        assert (told["state"], told["instance_id"]) == ("ready", status["instance_id"])
        lines = [json.loads(line) for line in Path(status["log_file"]).read_text().splitlines()]
        assert [line for line in lines if line["level"] in ("warning", "error")] == []
        assert len([line for line in lines if line["event"] == "ready"]) == 4


def test_both_doors_say_the_same_about_a_component_that_does_not_serve(tmp_path: Path) -> None:
    parts = {"MAG_KERNEL__COMPONENTS": "listener,tests.integration.node.parts:Sick"}
    often = {"MAG_HEALTH__INTERVAL_S": "0.05", "MAG_HEALTH__FAILURES": "1", "MAG_HEALTH__ON_UNHEALTHY": "report"}
    with up("--port", "0", cwd=tmp_path, **parts, **often) as node:
        status = node.ready()
        doors = [admin_url(status), str(status["urls"]["http"]).rstrip("/")]
        while answer("status", cwd=tmp_path)["state"] != "degraded":
            pass  # `up` has a fuse
        for door in doors:
            assert get(f"{door}/livez")[0] == 200
            assert get(f"{door}/startupz")[0] == 200
            assert get(f"{door}/readyz") == (503, '{"state":"degraded"}')
            assert "sick: running/unhealthy" in get(f"{door}/readyz?verbose")[1].splitlines()


async def test_two_kernels_in_one_process_share_no_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    before = footprint()
    async with running_kernel(Steady, data_dir=tmp_path) as first, running_kernel(Steady) as other:
        with pytest.raises(BootFailed, match="audit log"):
            await make_kernel(Steady, data_dir=tmp_path).boot()
        await first.restart_component("steady")
        await other.reset()
        assert (first.state, other.state) == ("ready", "ready")
        assert await first.services.audit.read(after_seq=0, limit=1)
    assert footprint().tasks <= before.tasks


def test_an_empty_address_does_not_mean_every_address() -> None:
    with pytest.raises(ConfigError, match=r"admin\.host"):
        make_config(values={"admin": {"host": ""}})


# ---------------------------------------------------------------- two of them


def test_a_second_node_finds_another_port_for_its_figures_and_says_which(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 9500))
            taken.listen()
        except OSError:
            pass  # somebody else has it: all the same to us
        with up(cwd=tmp_path) as node:
            url = admin_url(node.ready())
            assert not url.endswith(":9500")
            assert get(f"{url}/readyz")[0] == 200


def test_a_port_of_the_users_that_is_taken_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = mag("up", cwd=tmp_path, MAG_ADMIN__PORT=str(taken.getsockname()[1]))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert not (tmp_path / "mag_data" / "control.sock").exists()
    with up(cwd=tmp_path) as node:
        node.ready()


def test_an_outer_supervisor_sees_the_end_of_a_node_that_lost_what_it_cannot_do_without(tmp_path: Path) -> None:
    quick = {"MAG_RECOVERY__RESTARTS": "0", "MAG_RECOVERY__EXIT_ON": "steady,brittle"}
    with up(cwd=tmp_path, components="Steady Brittle", **quick) as node:
        node.ready()
        (tmp_path / "mag_data" / "break").touch()
        code, _, err = node.end()
    assert (code, "[MAG-CORE-023]" in err) == (1, True), err
    assert 'component "brittle" is quarantined' in err
    assert (tmp_path / "mag_data" / "drained").exists(), "the others drained"
