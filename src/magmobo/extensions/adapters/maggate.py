"""REST's neighbourhood for extensions: hook points `api.*`, and endpoints of their own below /ext/<id>/.

A request is answered by one question to the extension's worker. Who asks is decided by the gateway, by the rules of
REST; the extension learns role and claims, never the token. Invariant: what an extension does with one request, or does
not do, costs its own clients alone: time, size and number of requests under way are bounded for each extension.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from msgspec import Raw

from magmobo.contracts.errors import DeadlineExceeded, MagError, Unavailable
from magmobo.contracts.hooks import EndpointContext, HookPoint, Hooks
from magmobo.contracts.planes import Caller, Gateway, Listener, Mount, Scope
from magmobo.extensions.adapters import exchange
from magmobo.extensions.adapters.errors import (
    EndpointBusy,
    EndpointFailed,
    EndpointLimited,
    EndpointMethodRefused,
    EndpointNeedsToken,
    EndpointNotFound,
)
from magmobo.extensions.adapters.exchange import ClientGone, Receive, Send
from magmobo.extensions.adapters.surface import Surface
from magmobo.extensions.installed import Installed, Question
from magmobo.extensions.package.manifest import EndpointBinding
from magmobo.extensions.workers.errors import CallTooLarge, HandlerDenied, HandlerFailed, WorkerBusy

if TYPE_CHECKING:
    import structlog

SURFACE = Surface(adapter="maggate", component="maggate", protocols=(Gateway, Listener))
PREFIX = "/ext/"
CAPABILITY = "api.register_endpoint"
MAX_UNDER_WAY = 64
"""Requests to one extension that are answered at the same time."""
_NOBODY = Caller("", True)


class Worker(Protocol):
    """Who answers."""

    @property
    def installed(self) -> Installed: ...

    async def ask(self, question: Question) -> Raw:
        """The answer of one handler. Raises: MagError."""
        ...


class _Served:
    """The endpoints of one version, by path and method."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.installed = worker, worker.installed
        self.paths: dict[str, dict[str, EndpointBinding]] = {}
        for binding in self.installed.manifest.endpoints:
            self.paths.setdefault(binding.path, {})[binding.method] = binding
        self.under_way = 0

    def has(self, binding: EndpointBinding) -> bool:
        return binding.method in self.paths.get(binding.path, ())


class Endpoints:
    """Serves /ext/ once it is started. `holds(installed, capability)` says what is granted now, as
    `Gatekeeper.holds`; `hide` takes secrets of the node out of errors' words. Without a gateway, public endpoints alone
    are answered.
    """

    def __init__(
        self,
        listener: Listener,
        gateway: Gateway | None,
        hooks: Hooks,
        *,
        holds: Callable[[Installed, str], bool],
        log: structlog.stdlib.BoundLogger,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._listener, self._gateway = listener, gateway
        self._point: HookPoint[EndpointContext] = hooks.point("api.register_endpoint")
        self._holds, self._log, self._hide = holds, log, hide
        self._served: dict[str, _Served] = {}
        self._mount: Mount | None = None

    def start(self) -> None:
        """Take requests. Raises: ValueError when somebody else serves /ext/."""
        if self._mount is None:
            self._mount = self._listener.mount_http(PREFIX, self)

    def stop(self) -> None:
        """Take no more requests; those under way end with their workers."""
        if self._mount is not None:
            self._mount.release()
            self._mount = None

    async def attach(self, worker: Worker) -> None:
        """Send requests to this worker from now on, in the place of another one of the extension, which finishes those
        that it has.

        Raises: HookDenied, HookUnavailable when an extension that guards endpoints objects to one that was not served
            before; then all is as it was.
        """
        served = _Served(worker)
        extension_id = served.installed.id
        before = self._served.get(extension_id)
        for binding in served.installed.manifest.endpoints:
            if (chain := self._point.chain) is not None and (before is None or not before.has(binding)):
                path = f"{PREFIX}{extension_id}{binding.path}"
                await chain.before(EndpointContext(extension=extension_id, method=binding.method, path=path))
        if served.paths:
            self._served[extension_id] = served
        else:
            self.detach(extension_id)

    def detach(self, extension_id: str) -> None:
        """Answer that it is not there."""
        self._served.pop(extension_id, None)

    def under_way(self) -> Mapping[str, int]:
        """How many requests each extension is answering."""
        return {extension_id: served.under_way for extension_id, served in self._served.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        try:
            answer = await self._answered(scope, receive)
        except ClientGone:
            self._log.debug("client left before its answer", path=scope["path"])
        except MagError as error:
            await exchange.send_problem(send, error, self._hide)
        else:
            await exchange.send_answer(send, answer)

    # ------------------------------------------------------------ inside

    async def _answered(self, scope: Scope, receive: Receive) -> exchange.Answer:
        served, binding = self._find(scope)
        caller = self._identify(binding, exchange.authorization_of(scope))
        extension_id, timeout_s = served.installed.id, binding.timeout_ms / 1000
        if served.under_way >= MAX_UNDER_WAY:
            raise EndpointBusy(extension_id)
        served.under_way += 1
        try:
            async with asyncio.timeout(timeout_s) as limit:
                body = await exchange.read_body(scope, receive)
                argument = exchange.told(scope, binding.path, body, caller)
                left_s = max(0.001, (limit.when() or 0.0) - asyncio.get_running_loop().time())
                question = Question(f"endpoint:{binding.method} {binding.path}", argument, left_s)
                said = await self._said_by_whoever_is_there(served, binding, question, receive)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the answer of {extension_id}", timeout_s) from error
        finally:
            served.under_way -= 1
        return exchange.read_answer(extension_id, said)

    def _find(self, scope: Scope) -> tuple[_Served, EndpointBinding]:
        """Raises: EndpointNotFound, EndpointMethodRefused."""
        path = scope["path"].removeprefix(PREFIX)
        extension_id, _, rest = path.partition("/")
        served = self._served.get(extension_id)
        methods = None if served is None else served.paths.get(f"/{rest}")
        if served is None or methods is None or not self._holds(served.installed, CAPABILITY):
            raise EndpointNotFound
        binding = methods.get(scope["method"])
        if binding is None:
            raise EndpointMethodRefused(scope["method"], ", ".join(sorted(methods)))
        return served, binding

    def _identify(self, binding: EndpointBinding, authorization: bytes | None) -> Caller:
        """Who asks. Raises: EndpointNeedsToken, Unavailable; also what `Gateway.identify` raises."""
        if authorization is None and binding.public:
            with suppress(MagError):
                if self._gateway is not None:
                    return self._gateway.identify(None)
            return _NOBODY
        if authorization is None:
            raise EndpointNeedsToken
        if self._gateway is None:
            raise Unavailable("the gateway")
        return self._gateway.identify(authorization)

    async def _said_by_whoever_is_there(
        self, served: _Served, binding: EndpointBinding, question: Question, receive: Receive
    ) -> Raw:
        """A version that was found and has ended since did not get the question: the one that came after it does."""
        while True:
            try:
                return await self._said(served, question, receive)
            except Unavailable:
                later = self._served.get(served.installed.id)
                if later is None or later is served or not later.has(binding):
                    raise
                served = later

    async def _said(self, served: _Served, question: Question, receive: Receive) -> Raw:
        """The worker's answer, unless the client leaves before it comes. Raises: ClientGone, MagError."""
        asking = asyncio.create_task(served.worker.ask(question), name="endpoint")
        leaving = asyncio.create_task(_left(receive), name="endpoint disconnect watch")
        try:
            await asyncio.wait((asking, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise ClientGone
            return asking.result()
        except MagError as error:
            raise _in_public(served.installed.id, error, question.timeout_s) from error
        finally:
            asking.cancel()
            leaving.cancel()


def _in_public(extension_id: str, error: MagError, timeout_s: float) -> MagError:
    """What clients are told of an error between node and worker: no words of the extension but those meant for them."""
    if isinstance(error, HandlerDenied | CallTooLarge):
        return error
    if isinstance(error, HandlerFailed) and error.retry_s:
        return EndpointLimited(extension_id, error.retry_s)
    if error.http_status == HTTPStatus.GATEWAY_TIMEOUT:
        return DeadlineExceeded(f"the answer of {extension_id}", timeout_s)
    if error.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        return EndpointBusy(extension_id) if isinstance(error, WorkerBusy) else Unavailable(extension_id)
    return EndpointFailed(extension_id)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
