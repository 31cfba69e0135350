"""A budget of the day on whole nodes of one database, as their operators see it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.system.extension_shell import Shell, packed, trusted
from tests.unit.extensions.package.making import folder

from magmobo.testing.node import running_node

BUDGET, NAME = 5, "teller"
CODE = """
from magx import ApiError, Extension

ext = Extension()

@ext.command("tell")
async def tell(arguments):
    told = 0
    try:
        for _ in range(arguments["times"]):
            await ext.events.publish("told", {})
            told += 1
    except ApiError as error:
        return {"told": told, "code": error.code}
    return {"told": told, "code": ""}
"""


async def tell(operator: Shell, times: int) -> tuple[int, str]:
    """How many events it published, and why not more."""
    answer = (await operator.answer("extension:run", NAME, "tell", f'{{"times": {times}}}'))["result"]
    return answer["told"], answer["code"]


async def admit(operator: Shell) -> None:
    """With a budget of the day."""
    folder(
        operator.folder / NAME,
        {"extension.py": CODE},
        id=NAME,
        capabilities=[{"name": "api.emit_events", "reason": "tells"}],
        commands=[{"name": "tell", "summary": "Publishes events."}],
    )
    package = await packed(Shell(operator.folder), NAME)
    await trusted(operator)
    await operator.mag("extension:install", package, "--approve", "--enable", "--yes")
    await operator.mag("extension:grant", NAME, "api.emit_events", "--budget", str(BUDGET))


async def test_neither_a_restart_nor_another_node_gives_a_budget_anew(dsn: str, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": dsn}
    async with running_node(tmp_path / "one", environment=environment) as node:
        await admit(Shell(tmp_path, node))
        assert await tell(Shell(tmp_path, node), 3) == (3, "")
    async with (
        running_node(tmp_path / "one", environment=environment) as one,
        running_node(tmp_path / "two", environment=environment) as two,
    ):
        assert await tell(Shell(tmp_path, two), 100) == (BUDGET - 3, "MAG-EXT-143")
        operator = Shell(tmp_path, one)
        async with asyncio.timeout(30):
            while (await tell(operator, 1))[0]:  # until it hears of it
                await asyncio.sleep(0.1)
        shown = await operator.answer("audit:tail", "--extension", NAME, "--action", "extension.denied")
        assert [record["payload"]["reason"] for record in shown["records"]] == ["budget"]
        await two.kill()
    async with running_node(tmp_path / "two", environment=environment) as node:
        assert await tell(Shell(tmp_path, node), 1) == (0, "MAG-EXT-143")
