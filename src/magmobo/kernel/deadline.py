"""Runs a hook that may hang: with a deadline, and with the place where it hung.

Invariant: a call returns within `timeout_s` plus `grace_s`, whatever the hook does, short of blocking the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
GRACE_S = 2.0


class Overrun(Exception):
    """The hook passed its deadline. `where` is the innermost line it waited at, `ended` whether cancelling worked.

    It never leaves the kernel: callers turn it into an error with a code.
    """

    def __init__(self, where: str, *, ended: bool) -> None:
        super().__init__(where, ended)
        self.where, self.ended = where, ended


async def run_bounded(hook: Coroutine[Any, Any, T], *, timeout_s: float, name: str, grace_s: float = GRACE_S) -> T:
    """Await `hook` in a task of its own.

    Raises: Overrun after the deadline, when the task was cancelled; what the hook raises; CancelledError only when the
    caller is cancelled (the hook is then cancelled too).
    """
    task = asyncio.create_task(hook, name=name)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        await end(task, grace_s=grace_s)
        raise
    if task.done():
        if task.cancelled():
            raise RuntimeError("it cancelled itself")
        return task.result()
    where = waiting_at(task)
    raise Overrun(where, ended=await end(task, grace_s=grace_s))


async def end(task: asyncio.Task[Any], *, grace_s: float = GRACE_S) -> bool:
    """Cancel `task` and wait for its end, at most `grace_s`; whether it ended. Its outcome is nobody's concern."""
    task.cancel()
    await asyncio.wait({task}, timeout=grace_s)
    if task.done():
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # marks it as seen, so that asyncio does not report it again
    return task.done()


def waiting_at(task: asyncio.Task[Any]) -> str:
    """`file:line in function` of the innermost coroutine of `task` that has a Python frame outside asyncio."""
    place = "an unknown place"
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None and "asyncio" not in Path(frame.f_code.co_filename).parts:
            place = f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return place


def _short(filename: str) -> str:
    """The last three parts of a path: enough to find the file, without the layout of the machine."""
    return "/".join(Path(filename).parts[-3:])
