"""A node that cannot do without a component ends, with an exit code for whoever supervises the node."""

from __future__ import annotations

import asyncio
from pathlib import Path

from magmobo.testing.node import start_node

CULPRIT = '''
import asyncio

from magmobo.contracts.component import Component, Context


class Culprit(Component):
    """Fails a moment after it started, once it is told to."""

    name = "culprit"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def start(self) -> None:
        self._context.spawn(self._work(), name="work")

    async def _work(self) -> None:
        while not (self._context.data_dir / "fail").exists():
            await self._context.clock.sleep(0.02)
        raise RuntimeError("the work failed")
'''
CONFIG = """
[kernel]
components = ["listener", "magds", "extensions", "culprit:Culprit"]

[recovery]
restarts = 1
backoff_s = 0.01
exit_on = ["culprit"]
"""


async def test_a_quarantined_component_that_is_indispensable_ends_the_node(data_dir: Path) -> None:
    folder = data_dir.parent
    (folder / "culprit.py").write_text(CULPRIT, encoding="utf-8")
    (folder / "mag.toml").write_text(CONFIG, encoding="utf-8")
    node = await start_node(data_dir, environment={"PYTHONPATH": str(folder)}, cwd=folder)
    try:
        (data_dir / "fail").touch()
        async with asyncio.timeout(30):
            assert await node.process.wait() == 1
        assert 'the node ended: component "culprit" is quarantined [MAG-CORE-023]' in node.printed
        assert "Traceback" not in node.printed
        assert not (data_dir / "control.sock").exists()
    finally:
        await node.kill()
