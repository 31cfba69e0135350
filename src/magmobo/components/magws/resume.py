"""Following a table from a position: what was missed first, in portions, then live, with no hole between.

A follower is admitted once the change stream has caught up. It is then either joined to the live channel at the
stream's position, or given history page by page from its own position; each page is asked anew, so nothing is buffered
for it, however long it takes, and it joins in the same step in which a page ends the history. A client that reads
slowly is given the next page when it has taken most of the last one; one that fell behind a live channel is brought
back the same way. When history does not reach back to a follower's position, it is told: `mag:gap`, or a close with
4200 for a client that does not know that word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from magmobo.components.magws import feed
from magmobo.components.magws.connection import Client
from magmobo.components.magws.errors import ChangesNotReady, SubscriptionRefused
from magmobo.components.magws.protocol import frames
from magmobo.components.magws.protocol.closing import CloseCode
from magmobo.components.magws.tables import TableChannel
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import DatabaseChange
from magmobo.contracts.planes import Changes, Gap

PAGE_BYTES = 131_072
PAGE_CHANGES = 2_000
BATCH_CHANGES = 20_000
DRAIN_POLL_S = 0.02
RETRY_S = 0.5
STALLED_S = 30.0
KEPT_BYTES = 8_388_608
ROUND_S = 0.01
_MORE, _WAIT, _DONE = "more", "wait", "done"


class Follower(Struct, eq=False):
    """One client on its way into one table channel.

    `position` is the last it has seen, None when it wants to begin now. `admitted` is False until
    subscription_succeeded was sent. `announce`: mag:resumed is owed at the end. `batch` holds changes to send, of which
    `done` were; `end` is the stream's position behind it, None when more history follows.
    """

    client: Client
    name: str
    table: TableChannel
    epoch: str = ""
    position: str | None = None
    admitted: bool = False
    announce: bool = False
    batch: Sequence[DatabaseChange] = ()
    done: int = 0
    end: str | None = None
    unsent_bytes: int = 0
    moved_s: float = 0.0


class Admissions(Protocol):
    """What the plane does for followers."""

    def admit(self, client: Client, name: str, table: TableChannel) -> None:
        """Raises: SubscriptionRefused when the channel may not be followed now."""
        ...

    def admitted(self, client: Client, name: str) -> None:
        """The client was told that it is subscribed."""
        ...

    def join(self, client: Client, name: str, table: TableChannel, position: str) -> None:
        """From now on the client gets the channel's changes live."""
        ...

    def key_columns(self, table: TableChannel) -> tuple[str, ...]:
        """The table's key."""
        ...

    def told_gap(self, name: str, gap: Gap) -> None:
        """A client was told of a gap."""
        ...


class Followers:
    """All followers of the node, moved on by one task."""

    def __init__(self, changes: Changes, admissions: Admissions, clock: Clock, *, send_buffer_bytes: int) -> None:
        self._changes, self._plane, self._clock = changes, admissions, clock
        self._drained_bytes = send_buffer_bytes // 2
        self._waiting: dict[tuple[Client, str], Follower] = {}
        self._words: dict[tuple[str, str, int], bytes] = {}
        self._words_bytes = 0
        self._work = asyncio.Event()

    def adjust(self, send_buffer_bytes: int) -> None:
        """Followers wait for a client that has more than half of this unsent."""
        self._drained_bytes = send_buffer_bytes // 2

    def __len__(self) -> int:
        return len(self._waiting)

    def find(self, client: Client, name: str) -> Follower | None:
        """The client's follower of a channel."""
        return self._waiting.get((client, name))

    def add(self, follower: Follower) -> None:
        """Take a client that asked for a channel, or fell behind on it. The channel's earlier follower is replaced."""
        follower.moved_s = self._clock.monotonic_s()
        self._waiting[follower.client, follower.name] = follower
        self._work.set()

    def drop(self, client: Client, name: str) -> bool:
        """The client does not want the channel any more. Whether it was subscribed already."""
        follower = self._waiting.pop((client, name), None)
        return follower is not None and follower.admitted

    def refuse(self, refused: Callable[[Follower], SubscriptionRefused | None]) -> None:
        """Tell every follower for whom `refused` gives a reason."""
        for key, follower in list(self._waiting.items()):
            if (refusal := refused(follower)) is not None:
                del self._waiting[key]
                follower.client.refuse(refusal)

    async def run(self) -> None:
        """Move followers on until cancelled."""
        while True:
            await self._work.wait()
            pause_s = await self._round()
            if not self._waiting:
                self._forget_words()
                self._work.clear()
            await (asyncio.sleep(0) if pause_s == 0 else self._clock.sleep(pause_s))

    async def _round(self) -> float:
        """One step for everybody, in portions of `ROUND_S`; how long to pause before the next. Nothing may be awaited
        between the stream's being caught up and a step, which reads its history and its position as one.
        """
        steps: set[str] = set()
        until_s = 0.0
        try:
            for key, follower in list(self._waiting.items()):
                if self._clock.monotonic_s() >= until_s:
                    await asyncio.sleep(0)
                    await self._changes.caught_up()
                    until_s = self._clock.monotonic_s() + ROUND_S
                steps.add(self._step(key, follower))
        except MagError as error:
            self._not_now(error)
            return RETRY_S
        return 0 if _MORE in steps or _WAIT not in steps else DRAIN_POLL_S

    def _not_now(self, error: MagError) -> None:
        """The stream cannot be followed: refuse the new; those already subscribed keep their position and wait."""
        for key, follower in list(self._waiting.items()):
            if not follower.admitted:
                del self._waiting[key]
                follower.client.refuse(ChangesNotReady(follower.name, str(error)), error)

    def _step(self, key: tuple[Client, str], follower: Follower) -> str:
        if self._waiting.get(key) is not follower:
            return _DONE
        outcome = _MORE
        if not follower.admitted and not self._admit(follower):
            outcome = _DONE
        elif follower.position is None:
            self._go_live(follower, self._changes.position)
            outcome = _DONE
        else:
            outcome = self._replay(follower, follower.position)
        if outcome == _DONE and self._waiting.get(key) is follower:
            del self._waiting[key]
        return outcome

    def _admit(self, follower: Follower) -> bool:
        client = follower.client
        try:
            self._plane.admit(client, follower.name, follower.table)
        except SubscriptionRefused as refusal:
            client.refuse(refusal)
            return False
        follower.admitted = True
        client.connection.send_frames(frames.subscription_succeeded(follower.name))
        self._plane.admitted(client, follower.name)
        entry = client.session.take_resume(follower.name)
        if entry is not None:
            follower.epoch, follower.position, follower.announce = entry.epoch, entry.serial, True
        return True

    def _replay(self, follower: Follower, position: str) -> str:
        if (stalled := self._stalled(follower)) is not None:
            return stalled
        if follower.done == len(follower.batch) and (gap := self._next_batch(follower, position)) is not None:
            self._gap(follower, gap)
            return _DONE
        if page := self._page(follower):
            follower.client.connection.send_frames(page)
        if follower.done == len(follower.batch) and follower.end is not None:
            self._go_live(follower, follower.end)
            return _DONE
        return _MORE

    def _next_batch(self, follower: Follower, position: str) -> Gap | None:
        """Ask history for what follows. The end counts only when all of it is sent in this very step."""
        answer = self._changes.replay(follower.table.table, follower.epoch, position)
        if isinstance(answer, Gap):
            return answer
        follower.batch, follower.done = answer.changes[:BATCH_CHANGES], 0
        follower.end = answer.position if len(answer.changes) <= PAGE_CHANGES else None
        return None

    def _stalled(self, follower: Follower) -> str | None:
        """Whether to wait for the client to read; a client that reads nothing for `STALLED_S` is closed."""
        unsent_bytes, now_s = follower.client.connection.unsent_bytes, self._clock.monotonic_s()
        if unsent_bytes <= self._drained_bytes:
            follower.unsent_bytes, follower.moved_s = unsent_bytes, now_s
            return None
        if unsent_bytes < follower.unsent_bytes or not follower.unsent_bytes:
            follower.unsent_bytes, follower.moved_s = unsent_bytes, now_s
        if now_s - follower.moved_s < STALLED_S:
            return _WAIT
        follower.client.close(CloseCode.OVER_CAPACITY, "too slow: the client reads nothing")
        return _DONE

    def _page(self, follower: Follower) -> bytes:
        """Frames of the next changes, about `PAGE_BYTES`; moves the follower on."""
        page: list[bytes] = []
        size_bytes, stop = 0, min(len(follower.batch), follower.done + PAGE_CHANGES)
        while follower.done < stop and size_bytes < PAGE_BYTES:
            change = follower.batch[follower.done]
            follower.done += 1
            follower.position = change.position
            if feed.matches(change, follower.table):
                page.append(feed.frame_for(follower.name, change.op, self._in_words(change, follower)))
                size_bytes += len(page[-1])
        if follower.done < len(follower.batch):
            follower.end = None
        return b"".join(page)

    def _in_words(self, change: DatabaseChange, follower: Follower) -> bytes:
        """Many clients come back at once and miss the same changes: the words of the last ones are kept."""
        limit_bytes = follower.client.app.max_row_bytes
        key = (follower.epoch, change.position, limit_bytes)
        words = self._words.get(key)
        if words is None:
            words = feed.in_words(change, follower.epoch, self._plane.key_columns(follower.table), limit_bytes)
            if self._words_bytes + len(words) > KEPT_BYTES:
                self._forget_words()
            self._words[key] = words
            self._words_bytes += len(words)
        return words

    def _forget_words(self) -> None:
        self._words.clear()
        self._words_bytes = 0

    def _gap(self, follower: Follower, gap: Gap) -> None:
        client = follower.client
        if not client.hello:
            client.close(CloseCode.RECONNECT, f"changes were missed ({gap.reason}): read the data again")
            return
        start, refetch = gap.from_position, refetch_of(follower.table)
        client.connection.send_frames(frames.gap(follower.name, start, gap.to_position, gap.reason, refetch))
        self._plane.told_gap(follower.name, gap)
        follower.announce = False
        self._go_live(follower, self._changes.position)

    def _go_live(self, follower: Follower, position: str) -> None:
        client, epoch = follower.client, self._changes.epoch
        if follower.announce:
            client.connection.send_frames(frames.resumed(follower.name, epoch, position))
        elif client.hello:
            client.connection.send_frames(frames.position(follower.name, epoch, position))
        self._plane.join(client, follower.name, follower.table, position)


def refetch_of(table: TableChannel) -> dict[str, Any]:
    """What a client should read again after a gap."""
    rows = {"schema": table.table.schema, "table": table.table.name}
    if table.filter is None:
        return rows
    return rows | {"column": table.filter.column, "value": table.filter.value}
