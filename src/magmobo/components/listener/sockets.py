"""Opening the listening socket, and making room for the connections it may get."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket

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
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressUnavailable(host, port, "the host name cannot be resolved") from error
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        refusal = _ERRORS.get(error.errno or 0, ListenError)
        raise refusal(host, port, error.strerror or str(error)) from error
    return listening


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
