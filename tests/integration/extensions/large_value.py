"""A program: asks for one value of 150 MB as an extension and prints by how many KiB this process grew meanwhile. It is
a process of its own, because one that has run many tests has peaks of its own, and as nice to others as it is told to.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

import psycopg
from tests.integration.extensions.sql_node import sql_node

from magmobo.extensions.sql.errors import ResultTooLarge

SIZE_BYTES = 150_000_000
TABLE = "create table public.orders (id int primary key, note text); insert into public.orders values (1, '')"


async def main(dsn: str, niceness: int) -> int:
    async with sql_node(dsn, TABLE) as node:
        one = await node.author("one", read=["public.orders"])
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"update public.orders set note = repeat('x', {SIZE_BYTES})".encode())
        await one.value("select 1")
        os.nice(niceness)  # from here on: how slowly this program starts is not in question
        Path("/proc/self/clear_refs").write_text("5")  # what is the peak begins anew
        before_kib = _status_kib("VmRSS")
        with suppress(ResultTooLarge):
            await one.fetch("select note from public.orders where id = 1")
            raise AssertionError("it was taken in")
        grown_kib = _status_kib("VmHWM") - before_kib
        assert await one.value("select length(note) from public.orders where id = 1") == SIZE_BYTES
        return grown_kib


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1], int(sys.argv[2]))))
