"""Opening the listening socket, and making room for the connections it may get."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from typing import Any

from magmobo.components.listener.errors import AddressUnavailable, ListenError, PortForbidden, PortTaken

_RESERVED_FILES = 512  # for the database, logs, children and whatever else the node opens

_ERRORS: dict[int, type[ListenError]] = {
    errno.EADDRINUSE: PortTaken,
    errno.EACCES: PortForbidden,
    errno.EPERM: PortForbidden,
    errno.EADDRNOTAVAIL: AddressUnavailable,
}


async def open_listening_socket(host: str, port: int, backlog: int) -> socket.socket:
    """A non-blocking TCP socket that listens already, because only that proves the port is ours.

    Raises: PortTaken, PortForbidden, AddressUnavailable, ListenError.
    """
    family, address = await _resolve(host, port)
    return _listen(host, port, backlog, family, address)


async def _resolve(host: str, port: int) -> tuple[int, Any]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressUnavailable(host, port, "the host name cannot be resolved") from error
    return found[0][0], found[0][4]


def _listen(host: str, port: int, backlog: int, family: int, address: Any, *, overlaps: bool = False) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if overlaps:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
        listening.listen(backlog)
        if overlaps:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    except OSError as error:
        listening.close()
        refusal = _ERRORS.get(error.errno or 0, ListenError)
        raise refusal(host, port, error.strerror or str(error)) from error
    return listening


async def open_another(host: str, port: int, backlog: int, *, beside: socket.socket) -> socket.socket:
    """A socket for another address, while `beside` listens on; `beside` itself when that is the address already.

    Two addresses of one port overlap when one of them is every address of the machine; the system then lets the second
    one in only if both say so, which they do for no longer than it takes.
    Raises: PortTaken, PortForbidden, AddressUnavailable, ListenError.
    """
    here = beside.getsockname()[:2]
    try:
        return await open_listening_socket(host, port, backlog)
    except PortTaken:
        if port != here[1]:
            raise
    family, address = await _resolve(host, port)
    if address[:2] == here:
        return beside
    beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        return _listen(host, port, backlog, family, address, overlaps=True)
    finally:
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def make_room(wanted_connections: int) -> int:
    """Raise this process's limit of open files for so many connections; how many there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted_connections + _RESERVED_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted_connections
    return max(1, min(wanted_connections, soft - _RESERVED_FILES))
