"""What the crash tests share: a writer that knows what it committed, and the judge of what a client saw."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg

from magmobo.testing.node import NodeProcess

TABLE = "create table public.events (id bigint generated always as identity primary key, batch int not null)"
CHANNEL = "db.public.events"
CONFIG = '[[magws.tables]]\ntable = "public.events"\naccess = "public"\n'


class Writer(threading.Thread):
    """Commits small transactions as fast as Postgres takes them, some rolled back, until `end` is called."""

    def __init__(self, dsn: str, seed: int, *, pause_s: float = 0.004) -> None:
        super().__init__(name="writer")
        self._dsn, self._random, self._pause_s = dsn, random.Random(seed), pause_s
        self._ended = threading.Event()
        self.committed: list[int] = []

    def run(self) -> None:
        with psycopg.connect(self._dsn) as connection:
            batch = 0
            while not self._ended.wait(self._pause_s):
                batch += 1
                ids = [self._insert(connection, batch) for _ in range(self._random.randint(1, 4))]
                if self._random.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
                    self.committed += ids

    def _insert(self, connection: psycopg.Connection[Any], batch: int) -> int:
        row = connection.execute("insert into public.events (batch) values (%s) returning id", (batch,)).fetchone()
        assert row is not None
        return int(row[0])

    def end(self) -> list[int]:
        """Stop writing; every id that was committed, in commit order."""
        self._ended.set()
        if self.ident is not None:  # it may end before it began, when a test fails early
            self.join(30)
        return self.committed


def realtime_of(node: NodeProcess) -> tuple[SimpleNamespace, str]:
    """Port and app key of a node, in the shape the pusher-js driver wants them."""
    address, _, key = node.status.urls["realtime"].rpartition("/")
    return SimpleNamespace(port=int(address.split(":")[2].split("/")[0])), key


def publish_events(data_dir: Path, extra: str = "") -> None:
    """Write the configuration beside the data folder."""
    (data_dir.parent / "mag.toml").write_text(CONFIG + extra, encoding="utf-8")


def judge(lines: list[dict[str, Any]], committed: list[int]) -> int:
    """Fail unless every committed row arrived once and in order, or lies where a gap was told; the number of gaps.

    Rows the writer does not know of may come too: their commit succeeded though its answer was lost.
    """
    seen: list[int] = []
    holes_allowed: set[int] = set()  # how many rows had been seen when a gap was told
    for line in lines:
        if "gap" in line:
            holes_allowed.add(len(seen))
        elif line.get("channel") == CHANNEL and line["event"] == "insert":
            seen.append(int(line["data"]["record"]["id"]))
    assert len(seen) == len(set(seen)), "a row arrived twice"
    assert seen == sorted(seen), "rows arrived out of order"
    arrived = set(seen)
    for missing in (id_ for id_ in committed if id_ not in arrived):
        before = sum(1 for id_ in seen if id_ < missing)
        assert before in holes_allowed, f"row {missing} of {len(committed)} is missing and no gap was told there"
    return len(holes_allowed)
