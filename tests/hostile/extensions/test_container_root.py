"""`mag up` as containers are mostly run: as root, in an ordinary container, with the data folder as it comes.

Workers have uids of their own there, and nothing can be mounted for them: they come to their files by the way that
everybody has, on which nothing of the node may be open. Who is no root plays a container with a user.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.hostile.extensions.sandbox_plays import IS_ROOT
from tests.system.extension_shell import Shell, packed
from tests.unit.extensions.package.making import asked, fields

from magmobo.testing.node import NodeProcess

MIB = 1_048_576
PROFILES = Path(__file__).with_name("profiles.py")
CODE = """
import os
from pathlib import Path

from magx import Extension

ext = Extension()


@ext.command("note")
async def note(arguments):
    with (Path(ext.data_dir) / "diary").open("a") as diary:
        diary.write(arguments["line"])
    return (Path(ext.data_dir) / "diary").read_text()


@ext.command("who")
async def who(arguments):
    code = Path(__file__).parent
    return {"uid": os.getuid(), "code": str(code), "data": str(ext.data_dir), "files": sorted(os.listdir(ext.data_dir))}


@ext.command("hoard")
async def hoard(arguments):
    for number in range(100):
        with (Path(ext.data_dir) / f"{number}").open("wb", buffering=0) as file:
            file.write(os.urandom(100_000))
            os.fsync(file.fileno())
    end = 0
    while True:
        end += 1
"""


@asynccontextmanager
async def container(data_dir: Path) -> AsyncIterator[NodeProcess]:
    """`mag up` in a container of the usual kind."""
    words = ["container-root" if IS_ROOT else "container", "-m", "magmobo.cli.main", "up", "--port", "0"]
    output = data_dir.with_name("printed.txt")
    with output.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROFILES), *words, "--data-dir", str(data_dir), cwd=data_dir.parent,
            stdout=sink, stderr=sink,
        )  # fmt: skip
    node = NodeProcess(process, data_dir, output)
    try:
        await node.wait_until_ready(60)
        yield node
        assert await node.stop() == 0
    finally:
        await node.kill()


async def admitted(operator: Shell, name: str, **manifest: Any) -> None:
    """Write, pack, install, approve and enable an extension."""
    author = operator.folder / name
    author.mkdir()
    commands = [{"name": one} for one in ("note", "who", "hoard")]
    wanted = fields(id=name, commands=commands, capabilities=[asked("filesystem.write")], **manifest)
    (author / "manifest.json").write_text(json.dumps(wanted))
    (author / "extension.py").write_text(CODE)
    package = await packed(Shell(operator.folder), name)
    await operator.mag("extension:trust", "--add", "author.key.pub", "--name", "me", "--yes")
    await operator.mag("extension:install", package, "--approve", "--enable", "--yes")


async def who(operator: Shell, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await operator.answer("extension:run", name, "who"))["result"]
    return found


async def test_an_extension_is_installed_answers_and_keeps_what_it_notes(tmp_path: Path) -> None:
    data_dir = tmp_path / "mag_data"
    async with container(data_dir) as node:
        operator = Shell(tmp_path, node)
        await admitted(operator, "diary")
        await admitted(operator, "other")
        doctor = await operator.answer("extension:doctor")
        assert doctor["tier"] == "S2"
        assert next(line for line in doctor["lines"] if line["name"] == "folder of extensions")["ok"]
        for line in ("one ", "two "):
            said = await operator.answer("extension:run", "diary", "note", json.dumps({"line": line}))
        assert said["result"] == "one two "
        mine, theirs = await who(operator, "diary"), await who(operator, "other")
        check_closed(data_dir, mine, theirs)
    async with container(data_dir) as node:
        said = await Shell(tmp_path, node).answer("extension:run", "diary", "note", '{"line": "three"}')
        assert said["result"] == "one two three"
        await Shell(tmp_path, node).mag("extension:disable", "diary", "--yes")
        await Shell(tmp_path, node).mag("extension:uninstall", "diary", "--delete-data", "--yes")
        assert not Path(mine["data"]).exists()
        assert not Path(mine["code"]).exists()


def check_closed(data_dir: Path, mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Nobody but the worker comes to its files, and the data folder of the node is as closed as ever."""
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    data, code = Path(mine["data"]), Path(mine["code"])
    assert (data.stat().st_uid, stat.S_IMODE(data.stat().st_mode)) == (mine["uid"], 0o700)
    if not IS_ROOT:
        return
    assert len({0, mine["uid"], theirs["uid"]}) == 3
    assert (code.stat().st_uid, code.stat().st_gid, stat.S_IMODE(code.stat().st_mode)) == (0, mine["uid"], 0o750)
    for folder in (data.parent, code.parent, data.parent.parent):
        found = folder.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o711)
    assert data_dir not in data.parents


async def test_a_folder_that_grew_too_large_is_named_emptied_and_used_again(tmp_path: Path) -> None:
    data_dir = tmp_path / "mag_data"
    async with container(data_dir) as node:
        operator = Shell(tmp_path, node)
        await admitted(operator, "hoarder", limits={"data_bytes": MIB})
        await operator.mag("extension:run", "hoarder", "hoard", exit_code=1)
        async with asyncio.timeout(30):
            while (await operator.answer("extension:show", "hoarder"))["info"]["state"] == "enabled":
                await asyncio.sleep(0.1)  # between two questions
        refused = await operator.refused("extension:enable", "hoarder")
        assert f"holds more than {MIB} bytes; `mag extension:enable hoarder --empty-files`" in refused
        assert "MAG-EXT-105" in refused
        assert "not confirmed" in await operator.refused("extension:enable", "hoarder", "--empty-files")
        await operator.mag("extension:enable", "hoarder", "--empty-files", "--dry-run")
        assert "MAG-EXT-105" in await operator.refused("extension:enable", "hoarder")
        await operator.mag("extension:enable", "hoarder", "--empty-files", "--yes")
        assert (await who(operator, "hoarder"))["files"] == []
        tail = await operator.answer("audit:tail", "--lines", "1000", "--action", "extension.enable")
        params = [record["payload"].get("params", {}) for record in tail["records"]]
        assert {"id": "hoarder", "empty_files": True} in params


async def test_one_that_is_enabled_is_started_anew_without_its_files(tmp_path: Path) -> None:
    data_dir = tmp_path / "mag_data"
    async with container(data_dir) as node:
        operator = Shell(tmp_path, node)
        await admitted(operator, "full", limits={"data_bytes": MIB})
        await operator.mag("extension:run", "full", "note", '{"line": "short"}')
        data = Path((await who(operator, "full"))["data"])
    (data / "much").write_bytes(os.urandom(2 * MIB))
    async with container(data_dir) as node:
        operator = Shell(tmp_path, node)
        assert "--empty-files" in await operator.mag("status", exit_code=4)
        assert (await operator.answer("extension:show", "full"))["info"]["state"] == "enabled"
        await operator.mag("extension:enable", "full", "--empty-files", "--yes")
        assert (await who(operator, "full"))["files"] == []
        await operator.mag("extension:enable", "full", "--empty-files", "--yes")
        assert (await who(operator, "full"))["files"] == []
