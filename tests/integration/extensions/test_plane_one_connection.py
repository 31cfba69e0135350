"""The whole plane with a pool of a single connection: changes of extensions hold one for as long as they take."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hostile.extensions.node_gate import gate


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that Postgres may enter, whose user is another when we are root."""
    made = Path(tempfile.mkdtemp(prefix="mag-one-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


async def test_an_extension_comes_works_and_goes_with_a_pool_of_one(folder: Path) -> None:
    magds = {"system_dir": str(folder / "system"), "pool_size": 1, "acquire_timeout_s": 3}
    async with gate(folder, magds=magds) as node:
        await node.command("extension:disable", id="quiet")
        await node.command("extension:enable", id="quiet")
        await node.run("quiet", "hello")
        await node.command("extension:disable", id="quiet")
        await node.command("extension:uninstall", id="quiet")
        assert await node.sql("select count(*) from mag.extension") == [(0,)]
