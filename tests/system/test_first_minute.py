"""The first minute with the flights demo: what `mag up` prints can be pasted and works."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from magmobo.testing.node import NodeProcess, running_node

ROOT = Path(__file__).parents[2]
LATEST_TO_SEATTLE = [("DL", 1543, 504), ("DL", 1643, 471), ("B6", 263, 340)]  # from the data set itself


def pasted(node: NodeProcess, word: str) -> str:
    """The command that the banner offers and that holds `word`."""
    lines = [line.split(maxsplit=1)[1] for line in node.printed.splitlines() if line.split()[:1] == ["try"]]
    [command] = [line for line in lines if word in line]
    return command


def in_the_readme(node: NodeProcess, word: str) -> str:
    """The command of the README's first section that holds `word`, for the port of this node."""
    first = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    [command] = [line.removeprefix("$ ") for line in first.splitlines() if line.startswith("$ ") and word in line]
    return command.replace("http://127.0.0.1:8787", node.base_url).replace(".venv/bin/python", sys.executable)


def banner(node: NodeProcess) -> list[str]:
    text = node.printed
    return text[text.index("MagMoBo") :].splitlines()


def rows_of(command: str) -> Any:
    return json.decode(subprocess.run(command, shell=True, check=True, capture_output=True).stdout)


async def first_change_of(command: str, data_dir: Path) -> bytes:
    """Run the pasted subscribe line until it shows one change."""
    process = await asyncio.create_subprocess_shell(
        f"exec {command}", cwd=ROOT, env=os.environ | {"MAG_KERNEL__DATA_DIR": str(data_dir)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            async for line in process.stdout:
                if line.startswith(b"insert"):
                    return line
    finally:
        process.terminate()
        await process.wait()
    pytest.fail("the subscriber ended")


async def test_flights(data_dir: Path) -> None:
    async with running_node(data_dir, "--demo", "flights", "--speed", "3600") as node:
        assert len(banner(node)) <= 12
        for find in (pasted, in_the_readme):
            rows = await asyncio.to_thread(rows_of, find(node, "curl"))
            assert [(row["carrier"], row["flight"], row["dep_delay"]) for row in rows] == LATEST_TO_SEATTLE
            assert b'"schema":"public"' in await first_change_of(find(node, "subscribe"), data_dir)
        assert len(node.admin_token) >= 32
        with urllib.request.urlopen(node.status.urls["console"], timeout=60) as page:
            assert b"<title>" in page.read()
        assert node.admin_token not in (data_dir / "logs" / "mag.jsonl").read_text()
    async with running_node(data_dir, "--demo", "flights") as node:
        assert "token" not in {line.split()[0] for line in banner(node)}, "the token is shown once"
        assert await asyncio.to_thread(count_of, node) == 336_776


def count_of(node: NodeProcess) -> int:
    url = f"{node.base_url}/rest/v1/flights?limit=1"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"prefer": "count=exact"}), timeout=60) as answer:
        total = re.search(r"/(\d+)$", answer.headers["content-range"])
        assert total is not None
        return int(total[1])


async def test_tasks_shows_a_member_their_own_team(data_dir: Path) -> None:
    async with running_node(data_dir, "--demo", "tasks") as node:
        assert len(banner(node)) <= 12
        process = subprocess.run(pasted(node, "curl"), shell=True, check=True, capture_output=True, cwd=data_dir.parent)
        rows = json.decode(process.stdout)
        assert rows
        assert len({row["team_id"] for row in rows}) == 1
