"""Settings of the plane on a real node: live ones count while workers run, and the switch counts at a start."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.system.test_extension_author import NAME, Shell, admit, make_package

from magmobo.testing.node import running_node


async def test_an_idle_worker_ends_after_the_time_that_counts_now_and_comes_back_when_asked(tmp_path: Path) -> None:
    package = await make_package(tmp_path)
    async with running_node(tmp_path / "mag_data") as node:
        operator = Shell(tmp_path, node)
        await admit(operator, package)
        await operator.mag("config:set", "extensions.idle_stop_s", "1", "--yes")
        async with asyncio.timeout(60):
            while (await operator.answer("extension:show", NAME))["figures"]["memory_bytes"]:
                await asyncio.sleep(0.1)
        assert await operator.answer("extension:run", NAME, "report")
        assert (await operator.answer("extension:show", NAME))["info"]["state"] == "enabled"


async def test_a_node_whose_extensions_are_off_answers_and_runs_none(tmp_path: Path) -> None:
    package = await make_package(tmp_path)
    async with running_node(tmp_path / "mag_data") as node:
        await admit(Shell(tmp_path, node), package)
    (tmp_path / "mag.toml").write_text("[extensions]\nenabled = false\n", encoding="utf-8")
    async with running_node(tmp_path / "mag_data") as node:
        operator = Shell(tmp_path, node)
        listed = (await operator.answer("extension:list"))["extensions"]
        assert [(one["id"], one["state"]) for one in listed] == [(NAME, "enabled")]
        await operator.mag("extension:run", NAME, "report", exit_code=1)
        assert "switched off" in await operator.mag("status", exit_code=0)
