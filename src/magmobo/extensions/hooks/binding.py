"""One extension at one hook point, with everything about it that does not change from call to call.

`ask` says in one word how a call went, so that each way of running a chain decides by the same rules. Boundary: the
order, and what an answer changes, are the chain's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Raw

from magmobo.contracts.errors import HookDenied, HookUnavailable, MagError
from magmobo.contracts.hooks import BroadcastContext, ChannelContext, HookContext, HookSpec
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.hooks.breaker import OPEN_S, Breaker
from magmobo.extensions.hooks.errors import AnswerRefused
from magmobo.extensions.installed import Installed, Question
from magmobo.extensions.package.manifest import HookBinding
from magmobo.extensions.package.scopes import SCOPE_KINDS, channel_in
from magmobo.extensions.workers.errors import HandlerDenied, HandlerFailed, WorkerEnded, WorkerUnavailable

if TYPE_CHECKING:
    import structlog

Proceed = Callable[[], Awaitable[bool]]


class Asker(Protocol):
    """What a chain wants of a worker."""

    @property
    def installed(self) -> Installed: ...
    @property
    def lives(self) -> int:
        """Processes that became ready so far."""
        ...

    async def ask(self, question: Question) -> Raw: ...
    async def around(self, question: Question, proceed: Proceed) -> Raw: ...


class Absent:
    """Holds the place of a worker that is not there yet."""

    lives = 0

    def __init__(self, installed: Installed) -> None:
        self.installed = installed

    async def ask(self, question: Question) -> Raw:
        """Raises: WorkerUnavailable."""
        raise WorkerUnavailable(self.installed.id, "it has not started yet")

    async def around(self, question: Question, proceed: Proceed) -> Raw:
        """Raises: WorkerUnavailable."""
        raise WorkerUnavailable(self.installed.id, "it has not started yet")


class Binding:
    """One extension at one point. `fails_closed`: who is not answered is denied."""

    __slots__ = (
        "_by_channel", "_capability", "_gatekeeper", "_handler", "_limited_until_s", "_log", "_opened_in_life", "_own",
        "_time_s", "_timeout_s", "breaker", "extension", "extension_id", "fails_closed", "name", "order", "point",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Asker,
        spec: HookSpec,
        hook: HookBinding,
        gatekeeper: Gatekeeper,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.worker, self.point, self.breaker = worker, spec.name, Breaker()
        self.extension = worker.installed
        self.extension_id = worker.installed.id
        self.fails_closed = "deny" in (spec.on_error, hook.on_error)
        self.order = (-hook.priority, self.extension_id)
        self.name = f"{self.extension_id}/{spec.name}"
        self._own = (self.name,)
        self._handler, self._capability = f"hook:{spec.name}", spec.capability
        self._by_channel = "channels" in SCOPE_KINDS.get(spec.capability, ())
        self._timeout_s = min(spec.timeout_s, spec.timeout_s if hook.timeout_ms is None else hook.timeout_ms / 1000)
        self._gatekeeper, self._log = gatekeeper, log
        self._time_s = asyncio.get_running_loop().time
        self._opened_in_life, self._limited_until_s = 0, 0.0

    def takes_part(self, context: HookContext) -> bool:
        """Whether it may, now and in this: an operator who takes the capability back, or grants it for some channels,
        takes it out of the way of the others.
        """
        if not self._gatekeeper.holds(self.extension, self._capability):
            return False
        if not self._by_channel or not isinstance(context, ChannelContext | BroadcastContext):
            return True
        return channel_in(self.extension.scope(self._capability, "channels"), context.channel)

    async def ask(self, packed: Raw, chain: tuple[str, ...]) -> Raw | None:
        """Its answer; None when it does not count this time. Raises: HookDenied, HookUnavailable."""
        breaker = self.breaker
        if not breaker.is_closed and not self._lets():
            self._left_alone()
            return None
        own = chain + self._own if chain else self._own
        try:
            answer = await self.worker.ask(Question(self._handler, packed, self._timeout_s, own))
        except HandlerDenied as denied:
            self.answered()
            raise HookDenied(self.point, self.extension_id, denied.reason, denied.retry_s) from None
        except MagError as error:
            self.failed(error)
            return None
        if not breaker.is_closed:
            self.answered()
        return answer

    async def around(self, packed: Raw, chain: tuple[str, ...], proceed: Proceed) -> None:
        """Let it decide when `proceed` runs. Raises: HandlerDenied; MagError when it failed, or is left alone."""
        if not self.breaker.is_closed and not self._lets():
            raise WorkerUnavailable(self.extension_id, _TOO_OFTEN)
        await self.worker.around(Question(self._handler, packed, self._timeout_s, chain + self._own), proceed)
        self.answered()

    def failed(self, error: MagError) -> None:
        """It gave no answer that counts. Raises: HookUnavailable, when it fails closed."""
        pid = error.pid if isinstance(error, WorkerEnded) else 0
        if not isinstance(error, WorkerUnavailable):  # who was not asked met no limit, and has not seen one end
            self._limited_until_s = self._time_s() + (error.retry_s if isinstance(error, HandlerFailed) else 0.0)
        if self.breaker.failed(self._time_s(), pid=pid):
            self._opened_in_life = self.worker.lives
            self._log.warning(
                "an extension fails at a hook and is left alone",
                extension=self.extension_id, point=self.point, seconds=OPEN_S, error=str(error), code=error.code,
            )  # fmt: skip
        if self.fails_closed:
            said = _RAISED if isinstance(error, HandlerFailed) else str(error)
            raise HookUnavailable(self.point, self.extension_id, said, self._limited_s()) from error

    def misread(self, reason: str) -> None:
        """Its answer is not one. Raises: as `failed`."""
        self.failed(AnswerRefused(self.extension_id, self.point, reason))

    def answered(self) -> None:
        """It gave an answer that counts."""
        if not self.breaker.is_closed:
            self.breaker.succeeded()
            self._log.info("an extension answers again", extension=self.extension_id, point=self.point)

    def _lets(self) -> bool:
        """Whether one that failed too often may be asked: after a while, or when a new process has taken its place."""
        if self.worker.lives != self._opened_in_life:
            self.answered()
        return self.breaker.lets(self._time_s())

    def _left_alone(self) -> None:
        if self.fails_closed:
            raise HookUnavailable(self.point, self.extension_id, _TOO_OFTEN, self._limited_s())

    def _limited_s(self) -> float:
        """How long the limit lasts that kept it from answering; 0 when none did."""
        return max(0.0, self._limited_until_s - self._time_s())


_RAISED = "it raised an error, which is in its log"
"""Clients are told why they must wait. What an error says was not meant for them: a row, an address, a secret."""
_TOO_OFTEN = "it failed too often and is left alone for a while"
