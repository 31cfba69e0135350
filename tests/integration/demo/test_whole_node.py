"""`mag up --demo NAME`: the commands it prints do what they promise."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from magmobo.testing.node import NodeProcess, running_node, start_node


def ask(url: str, *, body: object = None, token: str = "") -> tuple[int, Any]:
    """Status and JSON of one request."""
    headers = {"Content-Type": "application/json", "Prefer": "return=representation"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def run_printed(node: NodeProcess, *, containing: str) -> Any:
    """JSON that the announced command with this text gives in a shell."""
    (command,) = (example for example in node.status.examples if containing in example)
    assert shutil.which(shlex.split(command)[0])
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=node.data_dir.parent
    )
    output, _ = await process.communicate()
    return json.loads(output)


async def test_flights_answers_its_own_example_and_takes_a_flight(tmp_path: Path) -> None:
    async with running_node(tmp_path / "data", "--demo", "flights", "--speed", "0") as node:
        rows = await run_printed(node, containing="flights?")
        assert [(row["carrier"], row["flight"], row["dep_delay"]) for row in rows] == [
            ("DL", 1543, 504), ("DL", 1643, 471), ("B6", 263, 340)]  # fmt: skip
        new = {key: value for key, value in rows[0].items() if key != "id"} | {"dest": "BQN"}
        status, created = await asyncio.to_thread(ask, f"{node.base_url}/rest/v1/flights", body=new)
        assert (status, created[0]["id"]) == (201, 336_777)
        status, problem = await asyncio.to_thread(ask, f"{node.base_url}/rest/v1/airlines", body={"carrier": "X"})
        assert status in {401, 403}, problem
        embedded = f"{node.base_url}/rest/v1/flights?select=id,airlines(name)&limit=1&order=id"
        assert await asyncio.to_thread(ask, embedded) == (
            200,
            [{"id": 1, "airlines": {"name": "United Air Lines Inc."}}],
        )


async def test_tasks_answers_members_only(tmp_path: Path) -> None:
    async with running_node(tmp_path / "data", "--demo", "tasks") as node:
        url = f"{node.base_url}/rest/v1/tasks?select=team_id"
        assert (await asyncio.to_thread(ask, url))[0] == 401
        rows = await run_printed(node, containing="/rest/v1/tasks?")
        assert len(rows) == 3
        assert {row["team_id"] for row in rows} == {1}
        token = (node.data_dir / "demo" / "member.jwt").read_text()
        status, everything = await asyncio.to_thread(ask, url, token=token)
        assert (status, len(everything)) == (200, 67)
        assert {row["team_id"] for row in everything} == {1}
        forged = {"team_id": 2, "title": "not mine"}
        assert (await asyncio.to_thread(ask, f"{node.base_url}/rest/v1/tasks", body=forged, token=token))[0] == 403


async def test_a_node_killed_while_it_loads_starts_again_whole(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = asyncio.create_task(start_node(data_dir, "--demo", "flights", "--speed", "0"))
    async with asyncio.timeout(30):
        while not (victim := _process_using(data_dir)):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.4)  # not waiting for anything: any moment of the start will do
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(Exception, match=r"exit -9|not ready"):
        await first
    async with running_node(data_dir, "--demo", "flights", "--speed", "0") as node:
        last = f"{node.base_url}/rest/v1/flights?select=id&order=id.desc&limit=1"
        assert await asyncio.to_thread(ask, last) == (200, [{"id": 336_776}])


def _process_using(data_dir: Path) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(data_dir).encode() in arguments and b"magmobo.cli.main" in arguments:
                return int(entry.name)
    return 0
