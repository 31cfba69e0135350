"""Connections to other servers: a name is resolved once, and the addresses that were checked are connected to.

Between the check of an address and the connection nothing asks for the name again, so a name server that answers
differently the second time changes nothing. Certificates are checked for the name. Imported with the first request: the
library behind it takes 100 ms. Boundary: connections; what may be asked, and of whom, was decided before.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpcore

from magmobo.extensions.api.addresses import Networks
from magmobo.extensions.api.errors import AddressRefused, RequestFailed

MAX_CONNECTIONS = 8
MAX_IDLE = 4
IDLE_S = 15.0
MAX_LOOKUPS = 2
MAX_ADDRESSES = 4
CONNECT_S = 5.0
RESOLVER_THREADS = 8

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a name, as texts; any OSError or UnicodeError means that there are none."""


class SystemResolver:
    """The system's own way to look names up, in threads of its own: a slow one keeps nobody else waiting."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="mag-resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _lookup, host, port)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Answer nothing more; a lookup that is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _lookup(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to addresses that were checked."""

    def __init__(self, resolve: Resolve, networks: Networks) -> None:
        self._resolve, self._networks = resolve, networks
        self._plain = httpcore.AnyIOBackend()
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises: AddressRefused when any address of the name may not be reached; RequestFailed, httpcore's errors."""
        last: Exception = RequestFailed(host, "the name has no address")
        for address in await self._addresses(host, port):
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Raises: AddressRefused, always."""
        raise AddressRefused(path)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            async with self._lookups:
                found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise RequestFailed(host, "its name cannot be resolved") from error
        if not all(self._networks.may_reach(address) for address in found):
            raise AddressRefused(host)
        return found[:MAX_ADDRESSES]


class Pool:
    """Connections of one extension. `retire` lets those under way end, and closes the rest."""

    def __init__(self, resolve: Resolve, networks: Networks, context: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=IDLE_S,
            network_backend=PinnedBackend(resolve, networks),
        )
        self._users = 0
        self._retired = False

    async def ask(
        self, method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes | None, *, max_bytes: int
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes | None]:
        """Status, headers and body of one answer, redirects not followed; no body: it is larger than `max_bytes`.

        Raises: as `PinnedBackend.connect_tcp`; httpcore's errors.
        """
        self._users += 1
        try:
            async with self._pool.stream(
                method, url, headers=headers, content=body, extensions={"timeout": {"connect": CONNECT_S}}
            ) as response:
                parts, size_bytes = [], 0
                async for part in response.aiter_stream():
                    size_bytes += len(part)
                    if size_bytes > max_bytes:
                        return response.status, response.headers, None
                    parts.append(part)
                return response.status, response.headers, b"".join(parts)
        finally:
            self._users -= 1
            if self._retired and not self._users:
                await self._pool.aclose()

    async def retire(self) -> None:
        """Nobody asks through it any more."""
        self._retired = True
        if not self._users:
            await self._pool.aclose()


def failure_of(error: Exception) -> str:
    """What an extension is told of a failed request: kinds of failures, and nothing of addresses."""
    match error:
        case httpcore.ConnectTimeout() | httpcore.PoolTimeout():
            return "no connection in time"
        case httpcore.ConnectError() if "CERTIFICATE" in str(error).upper() or "SSL" in str(error).upper():
            return "its certificate cannot be trusted, or it does not speak TLS"
        case httpcore.ConnectError():
            return "it takes no connection"
        case httpcore.ProtocolError():
            return "it does not speak HTTP"
        case _:
            return "the connection broke"
