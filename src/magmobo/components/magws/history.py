"""What ordinary channels keep for clients that resume: the last messages, bounded in number, bytes and age.

Table channels keep nothing here: the change stream has their history. A log begins with the first subscriber that said
hello; its `epoch` is new each time, so a position of a forgotten log is answered by a gap, never by silence. `serial`
is the number of the message in the log, 16 hex digits.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from magmobo.components.magws.protocol.messages import ResumeEntry


class Kept(Struct, frozen=True):
    """One message; `exclude` is the socket it was not sent to."""

    serial: int
    frame: bytes
    exclude: str
    kept_s: float


class Log:
    """The messages one channel keeps, oldest first."""

    __slots__ = ("epoch", "kept", "serial")

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self.serial = 0
        self.kept: deque[Kept] = deque()

    @property
    def position(self) -> str:
        """The serial of the newest message, as clients see it."""
        return f"{self.serial:016x}"

    def missed(self, entry: ResumeEntry) -> Sequence[Kept] | str:
        """Messages the client has not had, or the reason why that is unknown.

        It had everything up to `serial`, and `count` messages after it; what its former socket was excluded from was
        never meant for it.
        """
        if entry.epoch != self.epoch:
            return "epoch_changed"
        try:
            last = int(entry.serial, 16)
        except ValueError:
            return "malformed"
        if not 0 <= last <= self.serial:
            return "ahead" if last > self.serial else "malformed"
        if self.serial - last > len(self.kept):
            return "too_old"
        newer = [kept for kept in self.kept if kept.serial > last]
        mine = [kept for kept in newer if not entry.socket_id or kept.exclude != entry.socket_id]
        return mine[entry.count :] if entry.count <= len(mine) else "ahead"


class Histories:
    """All logs of the node under one bound of memory; above it they give up their oldest messages in turn."""

    def __init__(self, *, max_messages: int, max_bytes: int, max_age_s: float) -> None:
        self._max_messages, self._max_bytes, self._max_age_s = max_messages, max_bytes, max_age_s
        self._filled: dict[Log, None] = {}
        self.size_bytes = 0

    def adjust(self, *, max_messages: int, max_bytes: int, max_age_s: float) -> None:
        """Other bounds; what is above them goes at once, what is too old with the next `expire`."""
        self._max_messages, self._max_bytes, self._max_age_s = max_messages, max_bytes, max_age_s
        for log in list(self._filled):
            while len(log.kept) > max_messages:
                self._drop_oldest(log)
        self._shrink()

    def record(self, log: Log, frame: bytes, exclude: str, now_s: float) -> None:
        """Keep one message that is being published."""
        log.serial += 1
        log.kept.append(Kept(log.serial, frame, exclude, now_s))
        self._filled[log] = None
        self.size_bytes += len(frame)
        while len(log.kept) > self._max_messages:
            self._drop_oldest(log)
        self._shrink()

    def _shrink(self) -> None:
        """Bring the memory of all under its bound."""
        while self.size_bytes > self._max_bytes:
            first = next(iter(self._filled))
            self._drop_oldest(first)
            if first.kept:  # to the back: the next one gives
                del self._filled[first]
                self._filled[first] = None

    def forget(self, log: Log) -> None:
        """Drop a whole log."""
        while log.kept:
            self._drop_oldest(log)

    def expire(self, now_s: float) -> None:
        """Drop what is too old."""
        for log in list(self._filled):
            while log.kept and now_s - log.kept[0].kept_s > self._max_age_s:
                self._drop_oldest(log)

    def _drop_oldest(self, log: Log) -> None:
        self.size_bytes -= len(log.kept.popleft().frame)
        if not log.kept:
            self._filled.pop(log, None)
