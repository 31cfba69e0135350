"""Kinds of handlers: what each is given for a question of the node, and how what it returns is said.

Boundary: plain conversions. What cannot be converted raises, and is then the handler's failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from magx import wire
from magx.model import Event, Fields, HookCall, Job, Request, Response
from magx.texts import MAX_MESSAGE_CHARACTERS, said

_NOTHING = wire.raw(None)
_request = msgspec.msgpack.Decoder(Request)
_job = msgspec.msgpack.Decoder(Job)

Proceed = Callable[[int], Awaitable[bool]]
Given = Callable[[wire.Call, Proceed], Any]
Say = Callable[[Any], Raw]


def event(subscription: str, item: wire.Item) -> Event:
    """What an event's handler is given."""
    return Event(
        id=item.id, topic=item.topic, subscription=subscription, time_s=item.time_s, tries=item.tries,
        data=wire.value(item.data),
    )  # fmt: skip


def health_answer(result: Any) -> Raw:
    """`{status, detail}` for whatever a health handler may return. Raises: TypeError."""
    status, detail = _health(result)
    return wire.raw({"status": status, "detail": said(detail, MAX_MESSAGE_CHARACTERS)})


def _health(result: Any) -> tuple[str, str]:
    match result:
        case None | True:
            return "healthy", ""
        case False:
            return "unhealthy", ""
        case {"status": "healthy" | "degraded" | "unhealthy" as status, **rest} if set(rest) <= {"detail"}:
            return status, str(rest.get("detail", ""))
        case dict() if all(isinstance(ok, bool) for ok in result.values()):
            bad = ", ".join(str(name) for name, ok in result.items() if not ok)
            return ("unhealthy" if bad else "healthy"), bad
    raise TypeError("a health handler returns nothing, a bool, a map from check to bool, or {status, detail}")


def _hook_given(call: wire.Call, proceed: Proceed) -> HookCall[Any]:
    return HookCall(call.handler[5:], Fields(wire.value(call.argument)), partial(proceed, call.id))


def _hook_answer(result: Any) -> Raw:
    if result is None:
        return _NOTHING
    if not isinstance(result, Mapping):
        raise TypeError(f"a hook returns a map of the fields to change, or nothing, not {type(result).__name__}")
    return wire.raw(result)


def _endpoint_given(call: wire.Call, proceed: Proceed) -> Request:
    return _request.decode(call.argument)


def _endpoint_answer(result: Any) -> Raw:
    if result is None:
        result = Response(204)
    return wire.raw((result if isinstance(result, Response) else Response(200, result)).wire())


def _command_given(call: wire.Call, proceed: Proceed) -> Any:
    return wire.value(call.argument)["arguments"]


def _job_given(call: wire.Call, proceed: Proceed) -> Job:
    return _job.decode(call.argument)


def _job_answer(result: Any) -> Raw:
    return _NOTHING


def _health_given(call: wire.Call, proceed: Proceed) -> None:
    return None


KINDS: Mapping[str, tuple[Given, Say]] = {
    "hook": (_hook_given, _hook_answer),
    "endpoint": (_endpoint_given, _endpoint_answer),
    "command": (_command_given, wire.raw),
    "job": (_job_given, _job_answer),
    "health": (_health_given, health_answer),
}
"""Kind -> what its handler is given, how its answer is said. Events have no answer of their own."""
