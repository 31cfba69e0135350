"""`/livez` and `/readyz`: two answers for orchestrators. They need no host name, no login and no other component.

Liveness says only that the event loop turns; readiness repeats the state of the node. Neither says more, because both
are open to everybody who reaches the port.
"""

from __future__ import annotations

from typing import Any

from magmobo.components.listener.errors import MethodNotAllowed
from magmobo.components.listener.problems import Send, respond
from magmobo.contracts.planes import Operators, Scope

LIVE_PATH, READY_PATH = "/livez", "/readyz"


class Probes:
    """An ASGI application for the two paths."""

    paths = frozenset({LIVE_PATH, READY_PATH})

    def __init__(self, operators: Operators | None) -> None:
        self._operators = operators

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed
        state = "live" if scope["path"] == LIVE_PATH else self._node_state()
        status = 200 if state in ("live", "ready") else 503
        body = b'{"state":"%s"}' % state.encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await respond(send, status, headers, body)

    def _node_state(self) -> str:
        """The node's state; `unknown`, hence not ready, when nobody can tell."""
        return "unknown" if self._operators is None else self._operators.status().state
