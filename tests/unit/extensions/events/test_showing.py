"""The log shown to subscriptions: who was rewound meanwhile is not shown rows of its former place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec

from magmobo.extensions.events.access import Viewer
from magmobo.extensions.events.delivery import Delivery, Limits
from magmobo.extensions.events.line import Line, SubscriptionRow
from magmobo.extensions.events.log import Desk, Logged
from magmobo.extensions.installed import Installed
from magmobo.extensions.package.manifest import EventBinding, Manifest
from magmobo.testing.clock import FakeClock

BINDING = EventBinding(name="heard", topic="system.ready")
MANIFEST = Manifest(id="ext", name="Ext", version="1.0.0", events=[BINDING])
INSTALLED = Installed("ext", "1.0.0", "0" * 64, MANIFEST, Path("/nowhere"), "tests")


def rows(first: int, last: int) -> list[Logged]:
    body = msgspec.msgpack.encode({})
    return [Logged(seq, str(seq), "system.ready", "", 0, 1.0, body) for seq in range(first, last + 1)]


def line_at(cursor_seq: int, *, replay_to_seq: int = 0) -> tuple[Delivery, Line]:
    nobody: Any = None  # no connection and no bus are used here
    limits = Limits(100, 60.0)
    delivery = Delivery(cast(Desk, nobody), {}, lambda: limits, lambda *_: True, nobody, FakeClock(), nobody, nobody)
    row = SubscriptionRow("ext", "heard", True, cursor_seq, replay_to_seq, 0)
    return delivery, Line(row, Viewer(INSTALLED, BINDING, lambda *_: True), 100, delivery)


async def test_rows_go_to_those_that_are_where_they_begin() -> None:
    delivery, line = line_at(10)
    await delivery._show(rows(11, 20), [(line, line.backlog)])
    assert (line.backlog.scanned, line.backlog.waiting) == (20, 10)


async def test_who_was_rewound_meanwhile_is_shown_nothing() -> None:
    delivery, line = line_at(10)
    former = line.backlog
    line.adopt(SubscriptionRow("ext", "heard", True, 3, 10, 1))
    await delivery._show(rows(11, 20), [(line, former)])
    assert (line.backlog.scanned, line.backlog.waiting, line.backlog.cursor) == (3, 0, 3)


async def test_rows_that_became_a_gap_meanwhile_are_not_shown() -> None:
    delivery, line = line_at(10)
    line.lose(15)
    await delivery._show(rows(11, 20), [(line, line.backlog)])
    assert line.backlog.scanned == 20
    assert line.backlog.waiting == 1 + 5
    [gap] = line.backlog.take(0.0)
    assert (gap.seq, gap.key) == (11, None)


def test_a_replay_takes_a_window_at_a_time() -> None:
    _, line = line_at(0, replay_to_seq=5000)
    assert line.wants_more
    for row in rows(1, 150):
        line.show(row, {})
    line.shown(150)
    assert line.backlog.dropped == 0, "above the limit of 100, but it is a replay"
    assert not line.wants_more
