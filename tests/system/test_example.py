"""The example component as a user meets it: pip installs it, the node finds it, `mag` shows and steers it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from magmobo.testing.node import NodeFailed, running_node, start_node

EXAMPLE = Path(__file__).parents[2] / "examples" / "heartbeat"
SOURCE = "mag-heartbeat 1.0 (mag_heartbeat:Heartbeat)"
DEADLINE_S = 60


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example; no network, and nothing is left in the source tree."""
    folder = tmp_path_factory.mktemp("pip")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", folder / "source"], check=True
    )
    return folder / "site"


@pytest.fixture
def environment(site: Path) -> dict[str, str]:
    """Beats a hundred times a second, and is given up after two quick restarts."""
    return {
        "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "MAG_HEARTBEAT__PATH": "../beats/now",
        "MAG_HEARTBEAT__EVERY_S": "0.01",
        "MAG_RECOVERY__RESTARTS": "2",
        "MAG_RECOVERY__BACKOFF_S": "0.05",
    }


class Operator:
    """Somebody with a shell beside the node."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        self._data_dir, self._environment = data_dir, environment

    async def mag(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run one command with --json; exit code and answer."""
        command = [sys.executable, "-m", "magmobo.cli.main", *words, "--json", "--data-dir", str(self._data_dir)]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
            env=os.environ | self._environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, answer

    async def states(self) -> dict[str, str]:
        _, answer = await self.mag("component:list")
        return {one["name"]: one["state"] for one in answer["components"]}

    async def heartbeat(self) -> dict[str, Any]:
        _, answer = await self.mag("component:show", "heartbeat")
        return answer

    async def until(self, state: str) -> dict[str, Any]:
        """What `component:show` says once the example is in `state`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                shown = await self.heartbeat()
                if shown["status"]["state"] == state:
                    return shown


async def test_found_shown_restarted_quarantined_and_disabled(data_dir: Path, environment: dict[str, str]) -> None:
    beats = data_dir.parent / "beats"
    operator = Operator(data_dir, environment)
    beats.mkdir()
    async with running_node(data_dir, environment=environment) as node:
        assert node.status.urls["heartbeat"].endswith("/beats/now")
        assert (beats / "now").read_text().split()[1] == node.status.instance_id
        shown = await operator.heartbeat()
        assert (shown["status"]["state"], shown["version"], shown["source"]) == ("running", "1.0", SOURCE)
        assert shown["tasks"] == 1
        assert (await operator.mag("component:restart", "heartbeat"))[0] == 0
        assert (await operator.heartbeat())["status"]["restarts"] == 1
        assert "heartbeat" in json.dumps((await operator.mag("component:graph"))[1]["levels"])
        commands = {one["name"]: one for one in (await operator.mag("kernel:commands"))[1]["commands"]}
        assert commands["heartbeat:beat"]["summary"] == "Write the heartbeat file now."

        beats.rename(beats.with_name("gone"))  # at once: a beat may be written meanwhile
        shown = await operator.until("quarantined")
        assert "FileNotFoundError" in shown["status"]["detail"]
        assert shown["budget_left"] == 0
        code, listed = await operator.mag("component:list")
        assert code == 4
        others = {one["name"]: one["state"] for one in listed["components"] if one["name"] != "heartbeat"}
        assert others
        assert set(others.values()) == {"running"}
        with urllib.request.urlopen(f"{node.base_url}/livez", timeout=60) as answer:
            assert answer.status == 200

        beats.mkdir()
        assert (await operator.mag("component:restart", "heartbeat"))[0] == 0
        assert (await operator.states())["heartbeat"] == "running"
        assert (await operator.mag("component:disable", "heartbeat", "--yes"))[0] == 0
        assert (await operator.states())["heartbeat"] == "disabled"
    async with running_node(data_dir, environment=environment):
        assert (await operator.states())["heartbeat"] == "disabled", "for good"
        assert (await operator.mag("component:enable", "heartbeat"))[0] == 0
        assert (await operator.states())["heartbeat"] == "running"


@pytest.mark.usefixtures("_without_extensions")
async def test_added_to_a_node_that_runs_and_taken_off_again(data_dir: Path, environment: dict[str, str]) -> None:
    environment |= {"MAG_KERNEL__COMPONENTS": "listener,magds"}
    section = {name: environment.pop(name) for name in list(environment) if name.startswith("MAG_HEARTBEAT")}
    assert section, "a section that no component has is refused, so the node begins without it"
    operator = Operator(data_dir, environment)
    async with running_node(data_dir, environment=environment):
        assert set(await operator.states()) == {"listener", "magds"}
        code, answer = await operator.mag("component:register", "heartbeat")
        assert (code, answer["state"]) == (0, "running")
        assert "mag_heartbeat:Heartbeat" in (await operator.heartbeat())["source"]
        assert (data_dir / "heartbeat").is_file()
        assert (await operator.mag("component:unregister", "heartbeat", "--yes"))[0] == 0
        assert set(await operator.states()) == {"listener", "magds"}


async def test_a_broken_package_beside_it_is_a_notice(
    data_dir: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    info = tmp_path / "site" / "mag_broken-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mag-broken\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[magmobo.components]\nbroken = mag_broken:Broken\n")
    (tmp_path / "site" / "mag_broken.py").write_text("raise RuntimeError('half installed')\n")
    environment |= {"PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], str(tmp_path / "site")])}
    environment |= {"MAG_HEARTBEAT__PATH": "now"}
    async with running_node(data_dir, "--only", "heartbeat", environment=environment) as node:
        states = {one.name: one.state for one in node.status.components}
        assert states.pop("heartbeat") == "running"
        assert states
        assert set(states.values()) == {"disabled"}
        [notice] = [one for one in node.status.notices if "mag-broken" in one]
        assert notice.startswith("mag-broken 0.1 (mag_broken:Broken) is left out: ")
        assert "RuntimeError: half installed" in notice
    with pytest.raises(NodeFailed, match=r"exit 5\n.*half installed.*\[MAG-CORE-017\]"):
        await start_node(data_dir, environment=environment | {"MAG_KERNEL__COMPONENTS": "broken,magds,heartbeat"})
