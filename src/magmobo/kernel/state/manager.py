"""The state of a node: durable keys and values, one scope for each owner.

Boundary: values are JSON and nothing more; what they mean is their owner's business. Writes that wait at the same time
share one transaction and so one sync. Invariant: a call that returned is on disk; watchers hear of changes in the order
in which they became durable, before the call that made them returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from magmobo.contracts.errors import StateUnavailable, VersionConflict
from magmobo.contracts.stores import State, StateWatch
from magmobo.kernel.errors import describe
from magmobo.kernel.state.database import Change, Database, Outcome, Row
from magmobo.kernel.state.errors import StateDamaged
from magmobo.kernel.state.opening import open_file, write_snapshot
from magmobo.kernel.state.scope import ScopedState, entry_of
from magmobo.kernel.state.watch import Handler, Watchers
from magmobo.kernel.state.worker import Worker

T = TypeVar("T")
MAX_WAITING_BYTES = 64 * 1_048_576
CHANGE_BYTES = 512  # what a change takes besides its values, about
CLOSE_TIMEOUT_S = 10.0


class _Write(Struct, frozen=True):
    change: Change
    size_bytes: int
    done: asyncio.Future[Sequence[Row]]


class _Call(Struct, frozen=True):
    function: Callable[[], Any]
    done: asyncio.Future[Any]


class StateManager:
    """The one writer of the state file at `path`, whose folder exists. It opens once and closes once.

    Args:
        on_problem: told, on the loop, what `problems` also lists.
    """

    def __init__(self, path: Path, on_problem: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._on_problem = on_problem
        self._problems: list[str] = []
        self._watchers = Watchers(self._watcher_failed)
        self._waiting_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: Worker[_Write | _Call] | None = None
        self._reader: Worker[_Call] | None = None
        self._writable: Database | None = None  # used by the writer's thread only
        self._readable: Database | None = None  # used by the reader's thread only, once it is open

    @property
    def problems(self) -> Sequence[str]:
        """What an operator should know about the file, in the order in which it was found."""
        return tuple(self._problems)

    async def open(self) -> None:
        """Open the file, or begin one, and check all of it.

        A damaged file is set aside under another name and reported. Raises: StateUnavailable and its kinds when it
        cannot be opened for another reason; then nothing was changed.
        """
        if self._loop is not None:
            raise RuntimeError("a state manager opens once")
        self._loop = asyncio.get_running_loop()
        self._writer, self._reader = Worker("mag-state-write", self._write), Worker("mag-state-read", self._read)
        try:
            problems = await self._call(self._writer, self._open)
        except BaseException:
            await self.close()
            raise
        for problem in problems:
            self._report(problem)

    def scope(self, owner: str) -> State:
        """The entries of `owner`, which nobody else can see or touch. Raises: ValueError for an empty name."""
        return ScopedState(self, owner)

    def watch_count(self, owner: str) -> int:
        """How many watchers `owner` has."""
        return self._watchers.count(owner)

    def close_owner(self, owner: str) -> None:
        """End every watcher of `owner`; its entries stay."""
        self._watchers.close_owner(owner)

    async def snapshot(self, target: Path) -> None:
        """Write all entries, as they are at one moment, to a file that can be put in place of the state file.

        It gets its name when it is complete, checked and durable.
        Raises: StateUnavailable and its kinds; ValueError when `target` is the state file itself.
        """
        await self.read(partial(write_snapshot, self.path, target))

    async def close(self) -> None:
        """Finish the writes that wait and let go of the file. Calling it again does nothing."""
        writer, reader = self._writer, self._reader
        self._writer = self._reader = None
        if writer is None or reader is None:
            return
        # The writer goes last: whoever closes last empties the write-ahead log.
        for worker, close in ((reader, self._close_readable), (writer, self._close_writable)):
            done = self._call(worker, close)
            worker.stop()
            # Behind a disk that does not answer the threads are left alone; they are daemons.
            with suppress(TimeoutError, StateUnavailable):
                await asyncio.wait_for(done, CLOSE_TIMEOUT_S)

    # ------------------------------------------------------------ what scopes use

    async def read(self, function: Callable[[Database], T]) -> T:
        """What `function` finds in the database, on the reader's thread. Raises: StateUnavailable and its kinds."""
        reader = _opened(self._reader)
        return await self._call(reader, lambda: function(_opened(self._readable)))

    async def change(self, change: Change) -> Sequence[Row]:
        """Make `change`; durable when this returns. Raises: VersionConflict, StateUnavailable and its kinds."""
        writer = _opened(self._writer)
        size_bytes = CHANGE_BYTES + sum(len(value) for value in change.values.values() if value is not None)
        if self._waiting_bytes + size_bytes > MAX_WAITING_BYTES:
            raise StateUnavailable("too many writes wait for the disk")
        self._waiting_bytes += size_bytes
        done: asyncio.Future[Sequence[Row]] = self._home.create_future()
        writer.put(_Write(change, size_bytes, done))
        return await done

    def watch(self, owner: str, prefix: str, handler: Handler) -> StateWatch:
        """See `contracts.stores.State.watch`."""
        return self._watchers.add(owner, prefix, handler)

    @property
    def _home(self) -> asyncio.AbstractEventLoop:
        """The loop on which the manager was opened; answers come back there."""
        return _opened(self._loop)

    def _call(self, worker: Worker[Any], function: Callable[[], T]) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self._home.create_future()
        worker.put(_Call(function, done))
        return done

    # ------------------------------------------------------------ on the threads

    def _open(self) -> Sequence[str]:
        opened = open_file(self.path)
        self._writable, self._readable = opened.writable, opened.readable
        return opened.problems

    def _close_readable(self) -> None:
        database, self._readable = self._readable, None
        if database is not None:
            database.close()

    def _close_writable(self) -> None:
        self._close_readable()  # a start that was cancelled may have opened it after the reader had gone
        database, self._writable = self._writable, None
        if database is not None:
            database.close()

    def _write(self, jobs: Sequence[_Write | _Call]) -> None:
        """Neighbouring writes go together; order is kept."""
        writes: list[_Write] = []
        for job in jobs:
            if isinstance(job, _Write):
                writes.append(job)
                continue
            self._commit(writes)
            writes = []
            self._run(job)
        self._commit(writes)

    def _commit(self, writes: Sequence[_Write]) -> None:
        """One transaction for all; when that fails, each on its own, so that none suffers for another."""
        if not writes:
            return
        outcomes: Sequence[Outcome | StateUnavailable]
        try:
            outcomes = _opened(self._writable).commit([write.change for write in writes])
        except Exception as error:
            if len(writes) > 1:
                for write in writes:
                    self._commit([write])
                return
            outcomes = [error if isinstance(error, StateUnavailable) else StateUnavailable(describe(error))]
        self._answer(partial(self._committed, list(zip(writes, outcomes, strict=True))))

    def _read(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            self._run(call)

    def _run(self, call: _Call) -> None:
        try:
            result = call.function()
        except Exception as error:
            self._answer(partial(self._failed, call.done, error))
        else:
            self._answer(partial(_settle, call.done, result))

    def _answer(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it everybody who waited
            self._home.call_soon_threadsafe(function)

    # ------------------------------------------------------------ back on the loop

    def _committed(self, results: Sequence[tuple[_Write, Outcome | StateUnavailable]]) -> None:
        for write, outcome in results:
            self._waiting_bytes -= write.size_bytes
            if isinstance(outcome, StateUnavailable | VersionConflict):
                self._failed(write.done, outcome)
                continue
            for row in outcome:
                if row.version:
                    self._watchers.tell(write.change.owner, row.key, partial(entry_of, row))
            _settle(write.done, outcome)

    def _failed(self, done: asyncio.Future[Any], error: Exception) -> None:
        if isinstance(error, StateDamaged) and self._writable is not None:
            self._report(f"{error} [{error.code}]")
        if not done.done():
            done.set_exception(error)

    def _watcher_failed(self, owner: str, key: str, error: BaseException) -> None:
        self._home.call_exception_handler({"message": f'a watcher of "{owner}" failed on "{key}"', "exception": error})

    def _report(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.append(problem)
            if self._on_problem is not None:
                self._on_problem(problem)


def _opened(part: T | None) -> T:
    if part is None:
        raise StateUnavailable("it is not open")
    return part


def _settle(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)
