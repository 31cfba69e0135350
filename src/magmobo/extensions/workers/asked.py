"""A question that a worker has not answered yet, and on behalf of which one the node works now.

What the node does for an extension runs in the context of the call that asked for it. When that leads to another hook,
the new question has the same `root`: so the path of hooks is known across extensions, and an extension that names
another of its calls than the one it works in does not get a shorter path. Boundary: no I/O.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any


class Asked:
    """One question on its way. `hook`: it is a hook's; `events`: how many a delivery has, 0 for a call; `permit`: of an
    around hook, whether it lets its operation go on; `root`: the same object for all that one question led to.
    """

    __slots__ = ("answer", "chain", "deadline_s", "events", "handler", "hook", "id", "permit", "root", "timeout_s")

    def __init__(
        self,
        id: int,
        handler: str,
        hook: bool,
        chain: tuple[str, ...],
        timeout_s: float,
        deadline_s: float,
        answer: asyncio.Future[Any],
        above: Asked | None,
    ) -> None:
        self.id, self.handler, self.hook, self.chain = id, handler, hook, chain
        self.timeout_s, self.deadline_s, self.answer = timeout_s, deadline_s, answer
        self.root: object = answer if above is None else above.root  # not itself: that would be a cycle to collect
        self.permit: asyncio.Future[bool] | None = None
        self.events = 0

    def without_permit(self, _: object) -> None:
        """The hook ended; if it did not let its operation go on until now, it never will."""
        if self.permit is not None and not self.permit.done():
            self.permit.set_result(False)


CURRENT: ContextVar[Asked | None] = ContextVar("magmobo_extension_call", default=None)
"""The call on whose behalf this task works."""


def current_chain() -> tuple[str, ...]:
    """The hooks that led here, outermost first; empty outside of extensions' calls.

    Whoever carries an operation to another task that exists already takes `contextvars.copy_context()` along.
    """
    asked = CURRENT.get()
    return () if asked is None else asked.chain
