"""What waits for one subscription: in order by key, tried again after a while, never more than a bound. No I/O.

Rows of the log are offered in order; `take` gives a batch, `settle` says what came of it. An event that failed keeps
the later ones of its key waiting until it is done or given up; so does a gap with everything behind it. When too much
waits, the oldest are replaced by one gap, which grows. Invariant: everything up to `cursor` is settled, so delivery may
begin again behind it at any time; what it then tells twice it had told before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

RETRY_AFTER_S = (1.0, 5.0, 25.0)
MAX_BATCH = 64
NOT_TRIED = ""
"""The reason of an event that a worker did not come to, because one before it failed."""
LIMITED = "limited"
"""The reason of an event that could not be taken because the node let its extension ask no more for a while."""
BACKLOG, EXPIRED = "backlog", "expired"
"""Why a gap of ours stands for events: more waited than may, or they are no longer in the log."""
_LOOK_AT = 2000


class Waiting:
    """One event that is not settled. `key` None: a gap, which nothing overtakes. `reason` is that of a gap of ours,
    `backlog` or `expired`; then `count` and the times are of what it stands for, a count of 0 is not known.
    """

    __slots__ = ("count", "due_s", "key", "reason", "seq", "settled", "since_s", "taken", "tries", "until_s")

    def __init__(self, seq: int, key: str | None, since_s: float, until_s: float) -> None:
        self.seq, self.key, self.since_s, self.until_s = seq, key, since_s, until_s
        self.tries, self.due_s, self.count, self.reason = 0, 0.0, 0, ""
        self.settled = self.taken = False


class Backlog:
    """Of one subscription. `limit`: events that may wait."""

    def __init__(self, cursor: int, limit: int) -> None:
        self.scanned, self.limit = cursor, limit
        self._line: deque[Waiting] = deque()
        self._batch_limit = MAX_BATCH
        self._held_until_s = 0.0
        self.waiting = 0
        self.dropped = 0

    @property
    def cursor(self) -> int:
        """Everything up to here is settled."""
        self._trim()
        return self._line[0].seq - 1 if self._line else self.scanned

    # ------------------------------------------------------------ what comes

    def offer(self, seq: int, key: str | None, time_s: float, since_s: float | None = None) -> None:
        """The next event that the subscription sees; of a gap (`key` None) also since when."""
        self.scanned = seq
        self._line.append(Waiting(seq, key, time_s if since_s is None else since_s, time_s))
        self.waiting += 1
        while self.waiting > self.limit and self._drop_oldest(BACKLOG, seq):
            pass

    def pass_over(self, seq: int) -> None:
        """Rows up to here do not concern it."""
        self.scanned = max(self.scanned, seq)

    def lose(self, seq: int, now_s: float) -> None:
        """Rows up to here are no longer in the log: what of them waits, or was not looked at, becomes a gap."""
        while self._drop_oldest(EXPIRED, seq):
            pass
        if self.scanned < seq:
            gap = Waiting(self.scanned + 1, None, 0.0, now_s)
            gap.reason = EXPIRED
            self._line.append(gap)
            self.waiting += 1
            self.scanned = seq

    # ------------------------------------------------------------ what goes

    def take(self, now_s: float) -> Sequence[Waiting]:
        """The next batch; empty when nothing is due. Everything taken is given back by `settle` or `put_back`."""
        self._trim()
        if now_s < self._held_until_s:
            return ()
        batch: list[Waiting] = []
        blocked: set[str] = set()
        for one in self._look():
            if one.key is None:
                if not batch and not blocked and one.due_s <= now_s:
                    batch.append(one)
                break
            if one.key in blocked:
                continue
            if one.due_s > now_s:
                blocked.add(one.key)
                continue
            batch.append(one)
            if one.tries:
                blocked.add(one.key)  # alone, so that those behind it do not come again for each of its tries
            if len(batch) >= self._batch_limit:
                break
        for one in batch:
            one.taken = True
        return batch

    def settle(
        self, batch: Sequence[Waiting], failed: Mapping[int, str], now_s: float
    ) -> Sequence[tuple[Waiting, str]]:
        """What came of a batch: `failed` by place. The events that are given up, with the reason; they are settled
        once `bury` says so.

        Behind an event that failed, those of its key come again, because they are to be told after it.
        """
        given_up: list[tuple[Waiting, str]] = []
        again: set[str | None] = set()
        for place, one in enumerate(batch):
            reason = failed.get(place)
            if reason is None and one.key not in again:
                self._done(one)
                continue
            if reason is None or reason == NOT_TRIED:
                one.taken = False
                continue
            again.add(one.key)
            if reason == LIMITED:
                one.taken = False
                continue
            one.tries += 1
            if one.tries > len(RETRY_AFTER_S):
                given_up.append((one, reason))
                continue
            one.due_s, one.taken = now_s + RETRY_AFTER_S[one.tries - 1], False
        self._batch_limit = min(MAX_BATCH, self._batch_limit * 2)
        return given_up

    def bury(self, one: Waiting) -> None:
        """An event that was given up is kept elsewhere."""
        self._done(one)

    def put_back(self, batch: Sequence[Waiting]) -> None:
        """Nobody was asked."""
        for one in batch:
            one.taken = False

    def break_off(self, batch: Sequence[Waiting], reason: str, now_s: float) -> Sequence[tuple[Waiting, str]]:
        """The worker ended or did not answer, so nobody knows what came of a batch. Of one event it was that event;
        of several any, so they are tried one by one. Gives what is given up, as `settle`.
        """
        self._batch_limit = 1
        if len(batch) > 1:
            for one in batch:
                one.due_s, one.taken = now_s + RETRY_AFTER_S[0], False
            return ()
        given_up = self.settle(batch, {0: reason}, now_s)
        self._batch_limit = 1
        return given_up

    def hold_until(self, until_s: float) -> None:
        """Give nothing before: the node lets the extension ask no more until then. Then a batch is small, because such
        a limit lets little through at its end.
        """
        self._held_until_s, self._batch_limit = until_s, 1

    def slow_down(self) -> None:
        """The last batch took long: the next ones are smaller."""
        self._batch_limit = max(1, self._batch_limit // 4)

    def due_in_s(self, now_s: float) -> float | None:
        """When `take` may give something, seconds from now; None: not before something is offered. Nothing is taken."""
        self._trim()
        due_s: float | None = None
        seen: set[str] = set()
        for one in self._look():
            if one.key is None:
                due_s = one.due_s if not seen else due_s
                break
            if one.key not in seen:
                seen.add(one.key)
                due_s = one.due_s if due_s is None else min(due_s, one.due_s)
        return None if due_s is None else max(0.0, max(due_s, self._held_until_s) - now_s)

    # ------------------------------------------------------------ inside

    def _look(self) -> Iterator[Waiting]:
        """The oldest that wait for a batch. Looking at few bounds the time; they are those that matter."""
        for looked, one in enumerate(self._line):
            if looked >= _LOOK_AT:
                return
            if not one.settled and not one.taken:
                yield one

    def _done(self, one: Waiting) -> None:
        one.settled, one.taken = True, False
        self.waiting -= 1
        if len(self._line) > 2 * self.waiting + _LOOK_AT // 2:  # behind one that blocks, others go on
            self._compact()

    def _compact(self) -> None:
        self._line = deque(one for one in self._line if not one.settled)

    def _trim(self) -> None:
        while self._line and self._line[0].settled:
            self._line.popleft()

    def _drop_oldest(self, reason: str, up_to: int) -> bool:
        """Let the oldest event, not behind `up_to`, become a gap or part of the one before; whether there was one."""
        gap: Waiting | None = None
        oldest: tuple[int, Waiting] | None = None
        for place, one in enumerate(self._line):
            if one.settled or one.taken:
                continue
            if not one.reason:
                oldest = place, one
                break
            gap = one
        if oldest is None or oldest[1].seq > up_to:
            return False
        place, one = oldest
        self.dropped += 1
        if gap is None:
            one.key, one.reason, one.count, one.tries, one.due_s = None, reason, 1, 0, 0.0
            return True
        gap.count += 1 if gap.count else 0
        gap.since_s, gap.until_s = min(gap.since_s, one.since_s), max(gap.until_s, one.until_s)
        self.waiting -= 1
        one.settled = True
        del self._line[place]
        if place > 2 * MAX_BATCH:
            self._compact()
        return True
