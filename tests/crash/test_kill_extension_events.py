"""The promise of the event router under kill -9 of the node: of 100,000 events each is told at least once, or lies
inside of a gap of less than a minute; changes of tables and answered events of extensions lie in none.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct, field, json

PROGRAM = Path(__file__).with_name("extension_events_node.py")
ROOT = Path(__file__).parents[2]
EVENTS = 100_000
LEAST_KILLS = 8
_LIFE_NUMBERS = 1_000_000
_DRAINED = """
select coalesce(bool_and(cursor_seq >= (select coalesce(max(seq), 0) from mag.extension_event)), false)
from mag.extension_subscription
"""


class Lines(Struct):
    """What the lives of the node wrote down."""

    emitted: dict[int, float] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    noted: set[int] = field(default_factory=set)
    published: set[int] = field(default_factory=set)
    rows: list[int] = field(default_factory=list)
    gaps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.emitted) + len(self.answered)


class Rows(threading.Thread):
    """Commits rows all the time; `committed` are those that are."""

    def __init__(self, dsn: str) -> None:
        super().__init__(name="rows")
        self._dsn, self._over, self.committed = dsn, threading.Event(), 0

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._over.wait(0.01):
                connection.execute(
                    "insert into public.events select generate_series(%s::int, %s::int)",
                    (self.committed + 1, self.committed + 20),
                )
                self.committed += 20

    def end(self) -> int:
        self._over.set()
        self.join(30)
        return self.committed


@contextmanager
def life(dsn: str, folder: Path, first: int, end: int) -> Iterator[subprocess.Popen[str]]:
    """A node that serves; it is killed when the block ends."""
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(PROGRAM), dsn, str(folder), str(first), str(end)]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n":
                break
        else:
            raise AssertionError((folder / "log").read_text()[-4000:])
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)


def read(folder: Path) -> Lines:
    """A line that was cut by a kill is the last of its life, and counts for nothing."""
    lines = Lines()
    for line in (folder / "lines").read_text().splitlines():
        kind, _, rest = line.partition(" ")
        match kind:
            case "e":
                number, _, at = rest.partition(" ")
                lines.emitted[int(number)] = float(at)
            case "a":
                lines.answered.add(int(rest))
            case "n":
                lines.noted.add(int(rest))
            case "p":
                lines.published.add(int(rest))
            case "c":
                lines.rows.append(int(rest))
            case "g":
                subscription, _, facts = rest.partition(" ")
                lines.gaps.setdefault(subscription, []).append(json.decode(facts))
    return lines


def test_no_event_is_lost_without_a_word(dsn: str, tmp_path: Path) -> None:
    chance = random.Random(5)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table public.events (id int primary key)")
    writer = Rows(dsn)
    kills = 0
    try:
        while kills < LEAST_KILLS or read(tmp_path).count + writer.committed < EVENTS:
            first = kills * _LIFE_NUMBERS
            with life(dsn, tmp_path, first, first + _LIFE_NUMBERS):
                if not kills:
                    writer.start()
                time.sleep(chance.uniform(0.5, 3.0))  # the kill comes at any moment
            kills += 1
            assert kills < 100, f"only {read(tmp_path).count} events"
    finally:
        committed = writer.end()
    with life(dsn, tmp_path, 0, 0):
        _wait_until_told(dsn, tmp_path, committed)
    lines = read(tmp_path)
    assert set(lines.rows) == set(range(1, committed + 1))
    firsts = list(dict.fromkeys(lines.rows))
    assert firsts == sorted(firsts), "rows come in the order of their commits"
    assert "rows" not in lines.gaps
    assert lines.answered <= lines.published
    assert "published" not in lines.gaps
    gaps = lines.gaps.get("noted", [])
    missing = {number: at for number, at in lines.emitted.items() if number not in lines.noted}
    for number, at in missing.items():
        assert any(gap["since_s"] <= at <= gap["until_s"] for gap in gaps), f"{number} is lost without a word"
    assert {gap["reason"] for gap in gaps} == {"node_ended"}
    assert all(gap["until_s"] - gap["since_s"] < 60 for gap in gaps)
    assert len(missing) < len(lines.emitted) / 10


def _wait_until_told(dsn: str, folder: Path, committed: int) -> None:
    deadline = time.monotonic() + 60
    with psycopg.connect(dsn, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(_DRAINED).fetchone()
            if row is not None and row[0] and committed in read(folder).rows[-100:]:
                return
            time.sleep(0.2)
    raise AssertionError("not everything was told in a minute")
