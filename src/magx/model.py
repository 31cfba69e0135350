"""What handlers are given, what they answer with, and what they raise.

Boundary: values only; nothing here reaches the node. Everything that a handler is given came over the wire as msgpack,
so it holds texts, numbers, bytes, lists and maps, and times as `datetime` in UTC.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T", bound=Mapping[str, Any])


class HookDenied(Exception):
    """Raised by a hook handler: the operation must not happen. `reason` is told to whoever asked for it; `retry_s`,
    where it is known, is how long to wait before asking again (clients of REST read it in Retry-After).
    """

    def __init__(self, reason: str, retry_s: float = 0.0) -> None:
        super().__init__(reason, retry_s)
        self.reason, self.retry_s = reason, retry_s

    def __str__(self) -> str:
        return str(self.reason)


class ApiError(Exception):
    """The node did not do what it was asked. `code` is stable (`mag explain CODE` says more), `retry_s` is how long to
    wait before asking again, 0 where asking again will not help.
    """

    def __init__(self, code: str, message: str, retry_s: float = 0.0) -> None:
        super().__init__(code, message, retry_s)
        self.code, self.message, self.retry_s = code, message, retry_s

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class RateLimited(ApiError):
    """Asked too often, or the day's budget is used up; the same question may be asked again in `retry_s` seconds, which
    may be hours. Let it pass: an event or a job that meets it comes again by itself, and no try is counted.
    """


class NoNode(RuntimeError):
    """The node's functions were used where no node is: while the module is imported, or outside of a worker."""

    def __init__(self) -> None:
        super().__init__("no node is there yet: call this from a handler, or in a test through the magx_kernel fixture")


class Fields(dict[str, Any]):
    """A map that says no when it is changed: a hook changes fields by returning them."""

    def __setitem__(self, key: str, value: Any) -> NoReturn:
        raise TypeError(f"return {{{key!r}: …}} from the hook to change it")


class HookCall(Generic[T]):
    """One call of a hook. `data` holds what the hook point tells (`magx.contexts` has its types); return a map with the
    fields to change, or nothing. Raise `HookDenied` to refuse.
    """

    __slots__ = ("_proceed", "data", "point")

    def __init__(self, point: str, data: T, proceed: Callable[[], Awaitable[bool]]) -> None:
        self.point, self.data, self._proceed = point, data, proceed

    async def proceed(self) -> bool:
        """Around hooks: let the operation run, once, and wait for its end. Returns: whether it succeeded.

        Raises: RuntimeError at a point of another kind, and the second time.
        """
        if not self.point.rpartition(".")[2].startswith("around_"):
            raise RuntimeError(f"{self.point} goes on by itself; only an around hook lets it")
        return await self._proceed()


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """One event. It may come more than once: `id` is the same each time. `time_s` is seconds since 1970 UTC, `tries`
    counts from 1.
    """

    id: str
    topic: str
    subscription: str
    time_s: float
    tries: int
    data: Mapping[str, Any]


class Job(Struct, frozen=True, kw_only=True):
    """One run of a job. It may run more than once: `id` is the same each time. `tries` counts from 1."""

    id: str
    arguments: Mapping[str, Any] = {}
    tries: int = 1


class Request(Struct, frozen=True, kw_only=True):
    """One request to an endpoint. `path` is below `/ext/<id>`, `query` as it was sent, names of `headers` in lower
    case. `role` and `claims` are of the caller's token, checked by the node; `anonymous`: the caller has none.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    role: str = ""
    claims: Mapping[str, Any] = {}
    anonymous: bool = False

    @property
    def params(self) -> dict[str, str]:
        """The query's parameters; the last one counts where a name comes twice."""
        from urllib.parse import parse_qsl  # most extensions never read a query

        return dict(parse_qsl(self.query, keep_blank_values=True, max_num_fields=1000))

    def json(self) -> Any:
        """The body as JSON. Raises: ValueError."""
        return msgspec.json.decode(self.body)


class Response(Struct, frozen=True):
    """An answer to a request. `body` is bytes, a text, or what JSON can say."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = {}

    def wire(self) -> dict[str, Any]:
        """As it travels: a body of bytes, and the type that goes with it unless `headers` names one."""
        headers = {name.lower(): text for name, text in self.headers.items()}
        body, kind = _packed(self.body)
        if kind:
            headers.setdefault("content-type", kind)
        return {"status": self.status, "headers": headers, "body": body}


class HttpResponse(Struct, frozen=True, kw_only=True):
    """What a server outside answered."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def text(self) -> str:
        """The body as UTF-8; what is not is replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises: ValueError."""
        return msgspec.json.decode(self.body)


def _packed(body: Any) -> tuple[bytes, str]:
    match body:
        case bytes() | bytearray():
            return bytes(body), "application/octet-stream" if body else ""
        case str():
            return body.encode(), "text/plain; charset=utf-8"
        case _:
            return msgspec.json.encode(body), "application/json"
