"""`extension:dev` as an author uses it: a change is served within seconds, one that is broken leaves the former build
running and says why.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.system.extension_shell import Shell

from magmobo.testing.node import NodeProcess, running_node

NAME = "greeter"
COMMAND = """

@ext.command("hello")
def hello():
    ext.log.info("somebody is greeted")
    return "good morning"
"""


class Watching:
    """What `mag extension:dev` says, line by line, its complaints among the rest."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def until(self, words: str) -> str:
        """The first line that holds these words."""
        assert self.process.stdout is not None
        before = []
        async with asyncio.timeout(30):
            while line := (await self.process.stdout.readline()).decode():
                before.append(line)
                if words in line:
                    return line
        raise AssertionError(f"it ended:\n{''.join(before)}")


@asynccontextmanager
async def watching(folder: Path, node: NodeProcess) -> AsyncIterator[Watching]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "magmobo.cli.main", "extension:dev", NAME, "--yes", "--data-dir", str(node.data_dir),
        cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Watching(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


async def test_a_change_is_served_and_a_broken_one_is_not(data_dir: Path) -> None:
    folder = data_dir.parent
    await Shell(folder).mag("extension:new", NAME)
    code, manifest = folder / NAME / "extension.py", folder / NAME / "manifest.json"
    rewrite(manifest, '"commands": [', '"commands": [{"name": "hello"},')
    code.write_text(code.read_text(encoding="utf-8") + COMMAND, encoding="utf-8")
    async with running_node(data_dir) as node, watching(folder, node) as dev:
        operator = Shell(folder, node)

        async def greeting() -> str:
            found: str = (await operator.answer("extension:run", NAME, "hello"))["result"]
            return found

        await dev.until("serves")
        await dev.until("database.schema")
        assert await greeting() == "good morning"
        await dev.until("somebody is greeted")

        rewrite(code, "good morning", "good evening")
        await dev.until("serves")
        assert await greeting() == "good evening"

        rewrite(code, "def hello():", "def hello(:")
        assert "SyntaxError" in await dev.until("not taken")
        assert await greeting() == "good evening"
        rewrite(code, "def hello(:", "def hello():")
        await dev.until("serves")

        rewrite(code, "ext = Extension()", 'ext = Extension()\nraise RuntimeError("not today")')
        assert "RuntimeError: not today" in await dev.until("not taken")
        await dev.until('raise RuntimeError("not today")')  # of the trace, in the author's own file
        assert await greeting() == "good evening"

        rewrite(manifest, '"database.schema"', '"database.shema"')
        assert "database.schema" in await dev.until("not built")
        assert await greeting() == "good evening"
