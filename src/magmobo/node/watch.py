"""Sees that files of settings have changed, by looking at them every now and then.

Looking works everywhere: on network file systems, for files that an editor renames into place, and for the links that
Kubernetes swaps; it costs microseconds a look. Boundary: it knows what a file looks like from outside and reads none.
Invariant: whatever happens to a file, or to whoever is told, the next look comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import structlog

Signature = tuple[int, ...]
_ABSENT: Signature = ()
_SLICE_S = 1.0


def signature_of(path: Path) -> Signature:
    """Equal as long as the same file with the same content lies at `path`, through whatever links.

    Of a file that cannot be looked at it is the number of the error, so that its recovery is a change too.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return _ABSENT
    except OSError as error:
        return (error.errno or -1,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Looks:
    """One look after the other, without time. `files` names the files each time; it may raise OSError."""

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._files = files
        self._known: dict[Path, Signature] = {}
        self._seen: dict[Path, Signature] = {}

    def note(self) -> None:
        """What lies there now is no news, where nothing is known yet. Raises: OSError of `files`."""
        self._known = {**self._look(), **self._known}

    def look(self) -> bool:
        """Whether something has changed since the last True (or `note`), and rested since the last look.

        Raises: OSError of `files`.
        """
        found = self._look()
        has_rested, self._seen = found == self._seen, found
        if not has_rested or found == {path: self._known.get(path, _ABSENT) for path in found}:
            return False
        self._known = {path: signature for path, signature in found.items() if signature is not _ABSENT}
        return True

    def _look(self) -> dict[Path, Signature]:
        """Of every file there is, and of every one that was known."""
        return {path: signature_of(path) for path in {*self._files(), *self._known}}


class FileWatch:
    """Calls `changed` after files have changed, as long as `run` does.

    Args:
        files: the files to watch, asked at every look, in a thread; those of a folder are listed there.
        changed: told of a change that has rested for one look, never twice at the same time.
        interval_s: asked all the time: the pause between two looks.
        is_on: asked before every look; what changes while it is off is told when it is on again.
    """

    def __init__(
        self,
        files: Callable[[], Iterable[Path]],
        changed: Callable[[], Awaitable[object]],
        *,
        interval_s: Callable[[], float],
        is_on: Callable[[], bool],
    ) -> None:
        self._looks = Looks(files)
        self._changed, self._interval_s, self._is_on = changed, interval_s, is_on
        self._trouble = ""

    def note(self) -> None:
        """What lies there now is no news, where nothing is known yet: call it before the files are read for the first
        time, for whatever changes after that is told. Raises nothing; what cannot be looked at is news later.
        """
        try:
            self._looks.note()
        except OSError as error:
            self._report(error)

    async def run(self) -> None:
        """Look for ever, until cancelled. What was not noted before is noted now."""
        await asyncio.to_thread(self.note)
        while True:
            await self._pause()
            try:
                if self._is_on() and await asyncio.to_thread(self._looks.look):
                    await self._changed()
                self._trouble = ""
            except asyncio.CancelledError as error:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                self._report(error)  # something that `changed` waited for was cancelled, not this
            except Exception as error:
                self._report(error)

    async def _pause(self) -> None:
        """In slices, so that a shorter pause counts soon."""
        waited_s = 0.0
        while (left_s := self._interval_s() - waited_s) > 0:
            slice_s = min(left_s, _SLICE_S)
            await asyncio.sleep(slice_s)
            waited_s += slice_s

    def _report(self, error: BaseException) -> None:
        """Once, however often it comes in a row."""
        if (trouble := f"{type(error).__name__}: {error}") != self._trouble:
            self._trouble = trouble
            structlog.get_logger().bind(component="config").warning(
                "watching the settings' files failed", error=trouble
            )
