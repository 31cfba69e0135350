"""The way of a new author, as typed: an extension is begun, changed, tested, packed, signed, installed, and does its
work on a real node.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.system.extension_shell import Shell

from magmobo.testing.node import running_node

NAME = "late-settings"
CHANGED = "# changed by its author\n"


async def make_package(folder: Path) -> str:
    """Begin an extension, change it, test it, pack and sign it; the package's name."""
    author = Shell(folder)
    await author.mag("extension:new", NAME)
    code = folder / NAME / "extension.py"
    code.write_text(code.read_text(encoding="utf-8") + CHANGED, encoding="utf-8")
    await author.mag("extension:validate", NAME)
    assert "3 passed" in await author.mag("extension:test", NAME)
    await author.mag("extension:pack", NAME)
    await author.mag("extension:keygen", "author.key")
    package = next(path.name for path in folder.iterdir() if path.suffix == ".magx")
    await author.mag("extension:sign", package, "--key", "author.key")
    return package


async def admit(operator: Shell, package: str) -> None:
    """Trust the author, install, approve, enable."""
    refused = await operator.mag("extension:install", package, "--yes", exit_code=6)
    assert refused == ""
    await operator.mag("extension:trust", "--add", "author.key.pub", "--name", "the author", "--yes")
    asked = await operator.mag("extension:install", package, "--approve", "--enable", "--yes")
    assert "database.schema" in asked
    assert "enabled" in asked


async def reported(operator: Shell) -> list[dict[str, Any]]:
    """What the extension keeps of the events it was told, as soon as there is anything."""
    async with asyncio.timeout(30):
        while True:
            found: list[dict[str, Any]] = (await operator.answer("extension:run", NAME, "report"))["result"]
            if found:
                return found


async def test_from_nothing_to_an_event_that_was_handled(data_dir: Path) -> None:
    folder = data_dir.parent
    package = await make_package(folder)
    async with running_node(data_dir) as node:
        operator = Shell(folder, node)
        await admit(operator, package)
        await operator.mag("config:set", "magds.pool_size", "9", "--yes")
        assert await reported(operator) == [{"setting": "magds.pool_size", "changes": 1}]
        shown = await operator.answer("extension:show", NAME)
        assert (shown["info"]["state"], shown["info"]["health"]) == ("enabled", "healthy")
        assert "settings changed" in await operator.mag("extension:logs", NAME)


async def test_it_goes_on_after_the_node_was_killed_and_is_gone_when_it_is_uninstalled(data_dir: Path) -> None:
    folder = data_dir.parent
    package = await make_package(folder)
    async with running_node(data_dir) as node:
        await admit(Shell(folder, node), package)
        await node.kill()
    async with running_node(data_dir) as node:
        operator = Shell(folder, node)
        await operator.mag("config:set", "magds.pool_size", "9", "--yes")
        assert await reported(operator) == [{"setting": "magds.pool_size", "changes": 1}]
        await operator.mag("extension:disable", NAME, "--yes")
        told = await operator.mag("extension:uninstall", NAME, "--dry-run")
        assert told.strip() == f"{NAME} would be removed; its data waits for a package of the same signer"
        told = await operator.mag("extension:uninstall", NAME, "--yes")
        assert told.splitlines()[0] == f"{NAME} removed; its data waits for a package of the same signer"
        assert f"`mag extension:uninstall {NAME} --delete-data`" in told
        told = await operator.mag("extension:uninstall", NAME, "--delete-data", "--yes")
        assert told.strip() == f"{NAME} removed, with its data"
        assert (await operator.answer("extension:list"))["extensions"] == []
        await operator.mag("extension:show", NAME, exit_code=1)
