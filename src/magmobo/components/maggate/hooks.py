"""Extensions beside a REST request: those that are asked before it is planned, those that are told how it ended.

Who asks too often is refused first; then the request may be changed; whether its role may make it is asked last, of the
request as it will run. Boundary: what extensions are told, and what of their answers counts; the chains are others'.
Invariant: no token, cookie or key of a client leaves through a context; a body that was not shown is not changed.
"""

from __future__ import annotations

import msgspec

from magmobo.components.maggate.call import Call
from magmobo.components.maggate.errors import BodyTooLarge, RequestRateLimited
from magmobo.components.maggate.request import Headers
from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import HookDenied
from magmobo.contracts.events import ApiResponseSent
from magmobo.contracts.hooks import ErrorContext, HookPoint, Hooks, RequestContext, ResponseContext

SHOWN_BODY_BYTES = 65_536
_CONFIDENTIAL = ("auth", "cookie", "credential", "jwt", "key", "passw", "secret", "session", "token")


class Guards:
    """The points where extensions are asked before a request is planned. Test `chain` of each before calling `ask`."""

    __slots__ = ("before_request", "rate_limit", "rbac")

    def __init__(self, hooks: Hooks) -> None:
        self.rate_limit: HookPoint[RequestContext] = hooks.point("api.rate_limit_check")
        self.before_request: HookPoint[RequestContext] = hooks.point("api.before_request")
        self.rbac: HookPoint[RequestContext] = hooks.point("api.rbac_check")

    async def ask(self, call: Call, *, max_body_bytes: int) -> None:
        """Let extensions refuse the call, or change its query and body.

        Raises: RequestRateLimited, HookDenied, HookUnavailable; BodyTooLarge for what an extension made of the body.
        """
        context = _told(call)
        if (limiter := self.rate_limit.chain) is not None:
            try:
                await limiter.before(context)
            except HookDenied as denial:
                raise RequestRateLimited(denial.extension, denial.reason, denial.retry_s) from denial
        if (changer := self.before_request.chain) is not None:
            changed = await changer.before(context)
            context = _adopt(call, context, changed, max_body_bytes)
        if (judge := self.rbac.chain) is not None:
            await judge.before(context)


class Witnesses:
    """The points where extensions are told, and the event about a request that was answered."""

    __slots__ = ("_bus", "_clock", "after_request", "on_error")

    def __init__(self, hooks: Hooks, bus: Bus, clock: Clock) -> None:
        self._bus, self._clock = bus, clock
        self.after_request: HookPoint[ResponseContext] = hooks.point("api.after_request")
        self.on_error: HookPoint[ErrorContext] = hooks.point("api.on_error")

    def begin_s(self) -> float | None:
        """When a request began that somebody wants to hear the end of; None when nobody does."""
        if self.after_request.chain is not None or self._bus.has_listeners(ApiResponseSent):
            return self._clock.monotonic_s()
        return None

    def answered(self, call: Call, status: int, body_bytes: int, begun_s: float) -> None:
        """Tell that the call, which began at `begun_s`, was answered."""
        duration_s = self._clock.monotonic_s() - begun_s
        path, role = _text(call.raw_path), call.identity.role
        if (chain := self.after_request.chain) is not None:
            chain.after(
                ResponseContext(
                    request_id=_text(call.request_id),
                    method=call.method,
                    path=path,
                    table=call.table,
                    role=role,
                    status=status,
                    body_bytes=body_bytes,
                    duration_s=duration_s,
                )
            )
        if self._bus.has_listeners(ApiResponseSent):
            self._bus.emit(ApiResponseSent(call.method, path, status, duration_s, role))

    def failed(self, call: Call, status: int, code: str, message: str) -> None:
        """Tell that the call was refused, or failed; `message` is what the client reads."""
        if (chain := self.on_error.chain) is not None:
            chain.after(
                ErrorContext(
                    request_id=_text(call.request_id),
                    method=call.method,
                    path=_text(call.raw_path),
                    status=status,
                    code=code,
                    message=message,
                )
            )


def _told(call: Call) -> RequestContext:
    return RequestContext(
        request_id=_text(call.request_id),
        method=call.method,
        path=_text(call.raw_path),
        query=_text(call.query_string),
        table=call.table,
        role=call.identity.role,
        anonymous=call.anonymous,
        claims=_text(call.identity.claims),
        headers=_shown_headers(call.headers),
        body=_shown_body(call.body),
        body_bytes=len(call.body),
    )


def _adopt(call: Call, told: RequestContext, changed: RequestContext, max_body_bytes: int) -> RequestContext:
    """Go on with the changed query and body; what was not changed keeps its own bytes."""
    if changed.query != told.query:
        call.query_string = changed.query.encode()
    if changed.body != told.body and (told.body or not told.body_bytes):
        body = changed.body.encode()
        if len(body) > max_body_bytes:
            raise BodyTooLarge(max_body_bytes)
        call.body = body
    return msgspec.structs.replace(told, query=changed.query, body=_shown_body(call.body), body_bytes=len(call.body))


def _shown_headers(headers: Headers) -> dict[str, str]:
    """Headers without those that say who somebody is; one too many is kept back rather than one too few."""
    shown = {_text(name): _text(value) for name, value in headers.items()}
    return {name: value for name, value in shown.items() if not any(word in name for word in _CONFIDENTIAL)}


def _shown_body(body: bytes) -> str:
    if len(body) > SHOWN_BODY_BYTES:
        return ""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return ""


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
