"""A node with nothing but storage, for tests that kill it: `python node_process.py '{"data_dir": …}'`.

Prints one JSON object a line: {"ready": …} once booted, {"row": n} for each committed row, {"error": code, "text": …}
when it could not boot. With "uid" it becomes that user after all imports, so the interpreter may lie in root's home.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  # these would be imported when first used, after the change of user
import encodings.idna  # noqa: F401
import importlib.readers  # noqa: F401
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import structlog

from magmobo.components.magds.component import MagDS
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import Database
from magmobo.testing.harness import running_kernel


class Writer(Component):
    """Commits one row after the other and says so."""

    name = "writer"

    def __init__(self, context: Context, database: Needs[Database]) -> None:
        self._context, self._database = context, database

    async def boot(self) -> None:
        async with self._database.session() as connection:
            await connection.execute("create table if not exists kept (id bigint generated always as identity)")
            rows = await (await connection.execute("select count(*) from kept")).fetchone()
        say(rows=rows[0] if rows else None)

    async def start(self) -> None:
        self._context.spawn(self._write(), name="write")

    async def _write(self) -> None:
        while True:
            async with self._database.session() as connection:
                row = await (await connection.execute("insert into kept default values returning id")).fetchone()
            say(row=row[0] if row else None)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def main(options: dict[str, Any]) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    try:
        async with running_kernel(
            MagDS, Writer, config={"magds": options["magds"]}, data_dir=Path(options["data_dir"])
        ):
            say(ready=os.getpid())
            await ended.wait()
    except MagError as error:
        cause = getattr(error, "cause", error)  # of a failed boot
        say(error=getattr(cause, "code", ""), text=str(cause), boot=str(error))


async def load_everything() -> None:
    """A kernel imports some modules when it first needs them; another user may not be able to read them."""
    async with running_kernel():
        structlog.get_logger().info("loaded")


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    if uid := options.get("uid"):
        asyncio.run(load_everything())
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    asyncio.run(main(options))
