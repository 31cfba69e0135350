"""Runs a hook that may hang: with a deadline, and with the place where it hung.

Invariant: a call returns within `timeout_s` plus `grace_s`, whatever the hook does, short of blocking the loop; and
nothing a hook raises ends the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from magmobo.kernel.supervision.errors import HookEscaped

T = TypeVar("T")
GRACE_S = 2.0


class Overrun(Exception):
    """The hook passed its deadline. `where` is the innermost line it waited at, `ended` whether cancelling worked.

    It never leaves the kernel: callers turn it into an error with a code.
    """

    def __init__(self, where: str, *, ended: bool) -> None:
        super().__init__(where, ended)
        self.where, self.ended = where, ended


def _unwatched(task: asyncio.Task[Any]) -> None:
    """Most callers need no hold on the task."""


async def run_bounded(
    hook: Coroutine[Any, Any, T],
    *,
    timeout_s: float,
    name: str,
    grace_s: float = GRACE_S,
    interruption: asyncio.Future[BaseException] | None = None,
    began: Callable[[asyncio.Task[T]], None] = _unwatched,
) -> T:
    """Await `hook` in a task of its own.

    Args:
        interruption: ends the hook early; its result is raised.
        began: is given the task, which may outlive this call when it swallows its cancellation.
    Raises: Overrun after the deadline, when the task was cancelled; what the hook raises; HookEscaped when it leaves in
        a way that would end the loop; CancelledError only when the caller is cancelled (the hook is then cancelled
        too).
    """
    task = asyncio.create_task(contain(hook), name=name)
    task.add_done_callback(lambda _: hook.close())
    began(task)
    awaited: set[asyncio.Future[Any]] = {task} if interruption is None else {task, interruption}
    try:
        await asyncio.wait(awaited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await end(task, grace_s=grace_s)
        raise
    if task.done():
        if task.cancelled():
            raise HookEscaped("cancelled itself")
        return task.result()
    where = waiting_at(task)
    ended = await end(task, grace_s=grace_s)
    if interruption is not None and interruption.done():
        raise interruption.result()
    raise Overrun(where, ended=ended)


async def contain(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await `coroutine`; what would tear the loop down with it becomes an ordinary error. Raises: HookEscaped."""
    try:
        return await coroutine
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # asyncio lets SystemExit and KeyboardInterrupt of any task end the whole loop
        raise HookEscaped(f"raised {type(error).__name__}({error})") from error


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
            place = f"{short_path(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return place


def short_path(filename: str) -> str:
    """The last three parts of a path: enough to find the file, without the layout of the machine."""
    return "/".join(Path(filename).parts[-3:])
