"""Which Host headers the port answers: the guard against DNS rebinding. Pure rules, no I/O.

A web page can make its own name resolve to 127.0.0.1 and then talk to a server there as "same origin"; the name stays
in the Host header, so a server on loopback that answers only to loopback names cannot be reached that way.
Source: RFC 9110 sections 4.2.3 and 7.4 (421 Misdirected Request).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from magmobo.components.listener.errors import BadRequest, HostNotAllowed

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def is_loopback(address: str) -> bool:
    """Whether `address`, numeric as bound, reaches this machine only."""
    bound = ipaddress.ip_address(address.partition("%")[0])
    mapped = bound.ipv4_mapped if isinstance(bound, ipaddress.IPv6Address) else None  # ::ffff:127.0.0.1
    return (mapped or bound).is_loopback


class HostGuard:
    """Accepts or refuses the host a request is for."""

    def __init__(self, bound_address: str, allowed_hosts: Iterable[str]) -> None:
        listed = frozenset(_bracketed(name.lower()) for name in allowed_hosts)
        self._names = LOOPBACK_NAMES | {_bracketed(bound_address)} | listed
        self._guarding = is_loopback(bound_address) or bool(listed)

    def check(self, headers: Iterable[tuple[bytes, bytes]], http_version: str) -> None:
        """Pass when the request may be answered here.

        Raises: BadRequest without exactly one Host header (HTTP/1.0 may have none); HostNotAllowed.
        """
        values = [value for name, value in headers if name == b"host"]
        if len(values) != 1:
            if not values and http_version == "1.0":
                return
            raise BadRequest("a request has exactly one Host header")
        if self._guarding and _without_port(values[0].decode("latin-1")).lower() not in self._names:
            raise HostNotAllowed


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _without_port(host: str) -> str:
    """`example.org:80` -> `example.org`, `[::1]:80` -> `[::1]`; anything else stays as it is and matches no name."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal() and not host.endswith("]"):
        return name
    return host
