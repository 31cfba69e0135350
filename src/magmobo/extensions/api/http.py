"""`http.request`: what an extension may ask of servers outside, and what it is told.

The worker has no socket; the node asks on its behalf. Every hop is checked anew: the grant's hosts, then, when a
connection is made, the addresses. Invariant: the node's own credentials, proxies and name are no part of a request;
what goes out and what comes back is bounded in size and time. Source: CONTRACTS section 5; RFC 9110 section 15.4.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from magmobo.contracts.errors import DeadlineExceeded, MagError
from magmobo.extensions.api.addresses import Networks
from magmobo.extensions.api.errors import (
    AddressRefused,
    HeaderRefused,
    HostNotGranted,
    RequestFailed,
    ResponseTooLarge,
    TooManyRedirects,
)
from magmobo.extensions.api.targets import Target, follow, is_granted, parse
from magmobo.extensions.installed import ApiMethod, Caller, Installed

if TYPE_CHECKING:
    from magmobo.extensions.api.pools import Pool, Resolve, SystemResolver

CAPABILITY, METHOD = "network.outbound", "http.request"
MAX_BODY_BYTES = 524_288
MAX_HEADER_BYTES = 16_384
MAX_REDIRECTS = 5
MAX_TIMEOUT_S = 30.0
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_VALUE = re.compile(r"[\t -~]*")
_OF_THE_CONNECTION = frozenset(
    {"connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "te", "trailer",
     "transfer-encoding", "upgrade"}
)  # fmt: skip
_WITH_BODY = ("POST", "PUT", "PATCH")
_ACROSS_ORIGINS = frozenset({"accept", "accept-language", "content-type", "user-agent"})

Denied = Callable[[Installed, str, str, str], None]
"""Puts on record that an extension asked for more than its capability; as `Gatekeeper.denied`."""


class HttpArgs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `http.request`."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    url: str
    headers: Annotated[Mapping[str, str], Meta(max_length=50)] = {}
    body: Annotated[bytes, Meta(max_length=MAX_BODY_BYTES)] = b""
    timeout_s: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_S)] = 10.0


class HttpMethods:
    """Requests of all extensions of a node.

    `networks` (CIDR) may be reached besides the public internet. `resolve` looks names up and `trust` makes the context
    that certificates are checked with; both are the system's unless given.
    """

    def __init__(
        self,
        *,
        denied: Denied,
        networks: Sequence[str] = (),
        resolve: Resolve | None = None,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        """Raises: ValueError for a text that is no network."""
        self._denied, self._networks = denied, Networks(networks)
        self._resolve, self._trust = resolve, trust
        self._resolver: SystemResolver | None = None
        self._context: ssl.SSLContext | None = None
        self._preparing = asyncio.Lock()
        self._pools: dict[str, Pool] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def methods(self) -> Sequence[ApiMethod]:
        """What extensions may call."""
        return (ApiMethod(METHOD, CAPABILITY, HttpArgs, self.request),)

    def adopt(self, networks: Sequence[str]) -> None:
        """Other networks may be reached from now on; connections made under the former rule are used no more."""
        self._networks = Networks(networks)
        for extension_id in list(self._pools):
            self.forget(extension_id)

    def forget(self, extension_id: str) -> None:
        """The extension asks no more for now: its connections end with what is under way."""
        pool = self._pools.pop(extension_id, None)
        if pool is not None:
            task = asyncio.get_running_loop().create_task(pool.retire(), name="http pool")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """End all connections that nobody uses; a request that comes later opens new ones."""
        for extension_id in list(self._pools):
            self.forget(extension_id)
        if self._retiring:
            await asyncio.wait(self._retiring)
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = self._resolve = None

    async def request(self, caller: Caller, args: HttpArgs) -> Mapping[str, Any]:
        """`{status, headers, body}` of the answer, whatever its status.

        Raises: UrlRefused, HostNotGranted, AddressRefused, HeaderRefused, TooManyRedirects, ResponseTooLarge,
            RequestFailed, DeadlineExceeded.
        """
        target, headers = parse(args.url), _checked(args.headers)
        headers.setdefault("user-agent", f"{caller.extension.id}/{caller.extension.version} (MagMoBo extension)")
        left_s = caller.deadline_s - asyncio.get_running_loop().time()
        timeout_s = min(args.timeout_s, left_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._hops(caller.extension, args.method, target, headers, args.body)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the request to {target.place}", max(0.0, timeout_s)) from error
        except AddressRefused:
            self._denied(caller.extension, CAPABILITY, METHOD, "address")
            raise

    async def _hops(
        self, extension: Installed, method: str, target: Target, headers: dict[str, str], body: bytes
    ) -> Mapping[str, Any]:
        """Ask, and follow redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            if not is_granted(target, extension.scope(CAPABILITY, "hosts")):
                self._denied(extension, CAPABILITY, METHOD, "host")
                raise HostNotGranted(extension.id, target.place)
            status, told, answer = await self._hop(extension, method, target, headers, body)
            location = told.get("location")
            if location is None or status not in (301, 302, 303, 307, 308):
                return {"status": status, "headers": told, "body": answer}
            after = follow(target, location)
            if status not in (307, 308) and method not in ("GET", "HEAD"):
                method, body = "GET", b""
                headers.pop("content-type", None)
            if after.origin != target.origin:  # what was meant for one server is not told to another
                headers = {name: value for name, value in headers.items() if name in _ACROSS_ORIGINS}
            target = after
        raise TooManyRedirects(MAX_REDIRECTS)

    async def _hop(
        self, extension: Installed, method: str, target: Target, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        pool = await self._pool(extension.id)
        content = body if body or method in _WITH_BODY else None
        try:
            status, told, answer = await pool.ask(
                method, target.url, list(headers.items()), content, max_bytes=MAX_BODY_BYTES
            )
        except (MagError, TimeoutError):
            raise
        except Exception as error:
            from magmobo.extensions.api.pools import failure_of

            raise RequestFailed(target.place, failure_of(error)) from error
        if answer is None:
            raise ResponseTooLarge(target.place, MAX_BODY_BYTES)
        return status, _joined(told), answer

    async def _pool(self, extension_id: str) -> Pool:
        """The extension's connections; made with its first request, in a thread what takes long."""
        async with self._preparing:
            if self._context is None:
                self._context = await asyncio.to_thread(self._prepared)
        pool = self._pools.get(extension_id)
        if pool is None:
            from magmobo.extensions.api.pools import Pool, SystemResolver

            if self._resolve is None:
                self._resolver = SystemResolver()
                self._resolve = self._resolver
            pool = self._pools[extension_id] = Pool(self._resolve, self._networks, self._context)
        return pool

    def _prepared(self) -> ssl.SSLContext:
        import magmobo.extensions.api.pools  # noqa: F401  # for its 100 ms, which the loop shall not wait for

        return self._trust()


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by lower-case name. Raises: HeaderRefused."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise HeaderRefused("names and values are printable ASCII on one line")
        if lower in _OF_THE_CONNECTION or lower.startswith(("proxy-", "sec-")):
            raise HeaderRefused(f"{lower} is the node's to set")
        if lower in found:
            raise HeaderRefused(f"{lower} is there twice")
        found[lower] = value
    if sum(len(name) + len(value) for name, value in found.items()) > MAX_HEADER_BYTES:
        raise HeaderRefused(f"together they are larger than {MAX_HEADER_BYTES} bytes")
    return found


def _joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case; what comes several times is joined by commas."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = value if name not in found else f"{found[name]}, {value}"
    return found
