"""Brings records to disk in groups, one group at a time.

A group counts when three things have happened, in this order: its lines are in the log, the log is synced, and the
state store holds the new head. Files are touched in a thread of the writer's own; the state store is asked on the loop.

Invariant: a group is begun only when it is known what became of the one before. If the state store failed while it was
given a head, it is asked first: the old head means that the group is cut off, the new one that it stands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from magmobo.contracts.errors import AuditUnavailable, MagError
from magmobo.contracts.stores import State
from magmobo.kernel.audit.disk import MAX_DRAFTS, Disk, Sealed, open_disk
from magmobo.kernel.audit.errors import AuditLogInUse
from magmobo.kernel.audit.record import GENESIS, HEAD_KEY, Draft, Head, head_from

MAX_WAITING = 10_000

T = TypeVar("T")


class GroupWriter:
    """One log that is open, see `open_writer`. `head` is the durable one, `lasting` and `outage` say what is wrong."""

    def __init__(
        self, disk: Disk, state: State, head: Head | None, thread: ThreadPoolExecutor, tell: Callable[[str], None]
    ) -> None:
        self._disk, self._state, self._thread, self._tell = disk, state, thread, tell
        self._waiting: deque[tuple[Draft, asyncio.Future[Sealed]]] = deque()
        self._doubt: Head | None = None
        self._task: asyncio.Task[None] | None = None
        self.head = head
        self.grown = asyncio.Event()
        self.lasting: list[str] = []
        self.outage = ""
        self.records_total = self.errors_total = 0

    async def write(self, item: Draft) -> Sealed:
        """Where the record came to stand; it is durable. A caller that gives up does not take it back.

        Raises: AuditUnavailable.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise AuditUnavailable(f"{MAX_WAITING} records wait for the disk")
        place: asyncio.Future[Sealed] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, place))
        self._wake()
        return await place

    def tune(self, *, checkpoint_every: int) -> None:
        """See `AuditLog.tune`."""
        self._disk.checkpoint_every = checkpoint_every  # one word, which the thread reads before each group

    async def write_owed(self) -> None:
        """Tell of what was found at the opening. Raises nothing: what cannot be written is owed on."""
        self._tell_problems()
        if self._disk.owes:
            await self._wake()

    async def close(self) -> None:
        """Write what waits and a checkpoint over it, give everything back. Raises nothing."""
        if self._task is not None:
            await asyncio.wait({self._task})
        if self._disk.unsigned:
            try:
                await self._commit([], checkpoint=True)
            except AuditUnavailable as error:
                self._lasting_problem(f"no checkpoint was written at the end: {error}")
        self._tell_problems()
        await self._in_thread(self._disk.close)
        self._thread.shutdown()

    def _wake(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_waiting(), name="audit:writer")
        return self._task

    async def _write_waiting(self) -> None:
        """Write groups until nobody waits. A group that cannot be written is told to those who wait for it."""
        while self._waiting or self._disk.owes:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_DRAFTS))]
            try:
                sealed = await self._commit([item for item, _ in group])
            except AuditUnavailable as error:
                self._failed(error, [place for _, place in group])
                if not self._waiting:
                    return  # what the log owes goes first into the next group
                continue
            except BaseException:  # a defect, or the end of the loop: whoever waits must not wait for ever
                self._failed(AuditUnavailable("its writer was interrupted"), [place for _, place in group])
                raise
            for (_, place), where in zip(group, sealed, strict=True):
                if not place.done():
                    place.set_result(where)
            self._tell_problems()

    async def _commit(self, drafts: Sequence[Draft], *, checkpoint: bool = False) -> Sequence[Sealed]:
        """One group, made to count. Raises: AuditUnavailable."""
        try:
            await self._settle()
            written = await self._in_thread(self._disk.write, drafts, checkpoint)
            self._doubt = written.head
            await self._state.put(HEAD_KEY, msgspec.to_builtins(written.head))
        except (OSError, MagError) as error:
            raise AuditUnavailable(reason_of(error)) from error
        self._stands(written.head)
        self.records_total += len(drafts)
        self.outage = ""
        await self._tidy()
        return written.sealed

    async def _settle(self) -> None:
        """Find out what became of the last group when the state store did not say. Raises: AuditUnavailable."""
        if self._doubt is None:
            return
        found = await read_head(self._state)
        if found == self._doubt:
            self._stands(self._doubt)
        elif found != self.head:
            raise AuditUnavailable("its head in the state store was changed by somebody else")
        self._doubt = None

    def _stands(self, head: Head) -> None:
        self._disk.keep()
        self.head, self._doubt = head, None
        self.grown.set()
        self.grown = asyncio.Event()

    async def _tidy(self) -> None:
        if self._disk.untidy:
            try:
                await self._in_thread(self._disk.tidy)
            except OSError as error:
                self._lasting_problem(f"a file that was set aside keeps its first name ({reason_of(error)})")

    def _failed(self, error: AuditUnavailable, places: Sequence[asyncio.Future[Sealed]]) -> None:
        self.errors_total += len(places)
        for place in places:
            if not place.done():
                place.set_exception(AuditUnavailable(error.reason))
        if not self.outage:
            self._tell(str(error))
        self.outage = str(error)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _tell_problems(self) -> None:
        problems, self._disk.problems = self._disk.problems, []
        for problem in problems:
            self._lasting_problem(problem)

    def _lasting_problem(self, text: str) -> None:
        self.lasting.append(text)
        self._tell(text)


async def open_writer(
    folder: Path,
    state: State,
    *,
    time_s: Callable[[], float],
    segment_bytes: int,
    checkpoint_every: int,
    tell: Callable[[str], None],
) -> GroupWriter:
    """Take over the log in `folder`. Raises: AuditLogInUse, AuditUnavailable."""
    head = await read_head(state)
    thread = ThreadPoolExecutor(1, thread_name_prefix="mag-audit")
    take_over = partial(
        open_disk, folder, head, time_s=time_s, segment_bytes=segment_bytes, checkpoint_every=checkpoint_every
    )
    loop = asyncio.get_running_loop()
    taking = loop.run_in_executor(thread, take_over)
    try:
        disk = await asyncio.shield(taking)
        if head is None and not disk.owes:
            # Before there is a log: from now on a log without a head means that the head was taken away.
            head = Head(0, GENESIS)
            await state.put(HEAD_KEY, msgspec.to_builtins(head))
    except BaseException as error:  # a cancellation too: the thread may be taking the lock at this moment
        await _give_back(taking, thread)
        if isinstance(error, BlockingIOError):
            raise AuditLogInUse(str(folder)) from error
        if isinstance(error, (OSError, MagError)):
            raise AuditUnavailable(reason_of(error)) from error
        raise
    return GroupWriter(disk, state, head, thread, tell)


async def _give_back(taking: asyncio.Future[Disk], thread: ThreadPoolExecutor) -> None:
    """Close what the thread opened, or opens now, and end the thread."""
    await asyncio.wait([taking])
    if taking.exception() is None:
        await asyncio.get_running_loop().run_in_executor(thread, taking.result().close)
    thread.shutdown()


async def read_head(state: State) -> Head | None:
    """The head, None when there is none, or none that was written here. Raises: AuditUnavailable."""
    try:
        entry = await state.get(HEAD_KEY)
    except MagError as error:
        raise AuditUnavailable(reason_of(error)) from error
    return None if entry is None else head_from(entry.value)


def reason_of(error: BaseException) -> str:
    """In a few words; not the text of an OSError, whose path is nobody's business."""
    if isinstance(error, AuditUnavailable):
        return error.reason
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
