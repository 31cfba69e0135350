"""`/livez`, `/readyz` and `/startupz` on the public port. They need no host name, no login and no other component.

Everybody who reaches the port may ask, so nothing is said but states. `?verbose` adds a line for each component, and
only for a peer on this machine that no proxy speaks for: names of components are for people at the machine and their
scripts. A proxy on the same machine that hides itself would let these lines through; that is why they hold a state and
a health and nothing else. A stranger's `?verbose` is answered like the plain question, not refused, because
orchestrators act on the status alone.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from magmobo.components.listener.errors import MethodNotAllowed
from magmobo.components.listener.problems import Send, respond
from magmobo.contracts.planes import NodeStatus, Operators, Scope
from magmobo.contracts.probes import (
    LIVE_PATH,
    READY_PATH,
    STARTUP_PATH,
    ProbeAnswer,
    StartupProbe,
    live,
    ready,
    wants_verbose,
)

_FORWARDED = {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}


class Probes:
    """An ASGI application for the three paths."""

    paths = frozenset({LIVE_PATH, READY_PATH, STARTUP_PATH})

    def __init__(self, operators: Operators | None) -> None:
        self._operators, self._startup = operators, StartupProbe()

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed
        answer = self._answer(scope)
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", b"%d" % len(answer.body)),
            (b"cache-control", b"no-store"),
        ]
        await respond(send, answer.status, headers, answer.body)

    def _answer(self, scope: Scope) -> ProbeAnswer:
        if scope["path"] == LIVE_PATH:
            return live()  # without a look at the node
        node = self._node()
        if scope["path"] == STARTUP_PATH:
            return self._startup.answer(node)
        self._startup.answer(node)  # so that a node that is only ever asked for readiness is remembered, too
        query = scope.get("query_string", b"").decode("latin-1")
        return ready(node, verbose=wants_verbose(query) and is_at_the_machine(scope))

    def _node(self) -> NodeStatus | None:
        return None if self._operators is None else self._operators.status()


def is_at_the_machine(scope: Scope) -> bool:
    """Whether the peer's address is a loopback one and the request bears no mark of a proxy."""
    if scope.get("client") is None or any(name in _FORWARDED for name, _ in scope["headers"]):
        return False
    try:
        address = ipaddress.ip_address(str(scope["client"][0]).partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
