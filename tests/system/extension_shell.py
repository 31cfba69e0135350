"""What tests of extensions on a real node share: a shell in a folder, and the way of a package onto a node."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from magmobo.testing.node import NodeProcess

T = TypeVar("T")
KEY = "author.key"
EXAMPLES = Path(__file__).parents[2] / "examples" / "extensions"
_WAIT_S = 60.0


class Shell:
    """Runs `mag` in a folder, as a person would; what fails is shown."""

    def __init__(self, folder: Path, node: NodeProcess | None = None) -> None:
        self.folder, self._node = folder, node

    async def mag(self, *words: str, exit_code: int = 0, typed: str = "") -> str:
        """What it printed. `typed`: what comes through a pipe."""
        text, _ = await self.both(*words, exit_code=exit_code, typed=typed)
        return text

    async def refused(self, *words: str, exit_code: int = 1) -> str:
        """What it complained of."""
        _, complained = await self.both(*words, exit_code=exit_code)
        return complained

    async def both(self, *words: str, exit_code: int = 0, typed: str = "") -> tuple[str, str]:
        """Standard output and standard error."""
        there = ["--data-dir", str(self._node.data_dir)] if self._node is not None else []
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "magmobo.cli.main", *words, *there, cwd=self.folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(_WAIT_S):
            said, complained = await process.communicate(typed.encode())
        text = said.decode()
        assert process.returncode == exit_code, f"{words}: exit {process.returncode}\n{text}\n{complained.decode()}"
        return text, complained.decode()

    async def answer(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.mag(*words, "--json"))
        return found


async def packed(author: Shell, folder: str) -> str:
    """A signed package of an extension's folder; the file's name. The key is made with the first."""
    if not (author.folder / KEY).exists():
        await author.mag("extension:keygen", KEY)
    answer = await author.answer("extension:pack", folder, "--key", KEY, "--replace")
    return Path(answer["file"]).name


async def example(author: Shell, name: str, *, changes: Mapping[str, str] | None = None) -> str:
    """A signed package of an example, in whose manifest these texts were replaced first; the file's name."""
    for path in (EXAMPLES / name).rglob("*"):
        inside = path.relative_to(EXAMPLES)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in inside.parts):
            place = author.folder / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    manifest = author.folder / name / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text, encoding="utf-8")
    return await packed(author, name)


async def trusted(operator: Shell) -> None:
    """Trust the author of what `packed` made."""
    await operator.mag("extension:trust", "--add", f"{KEY}.pub", "--name", "the author", "--yes")


async def until(look: Callable[[], Awaitable[T]], *, wait_s: float = 30.0) -> T:
    """What `look` finds, as soon as it is anything."""
    async with asyncio.timeout(wait_s):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.05)  # between two questions, not instead of one
