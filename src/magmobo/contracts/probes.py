"""What the probes answer, for whichever door serves them: `/livez`, `/readyz`, `/startupz`. Pure.

Liveness depends on nothing: who answers, lives; a database that is away must not get the node killed. Readiness asks
whether the essential components serve. Startup is 503 until the node was ready once, then 200 for ever, so that an
orchestrator's patience with a slow first boot does not also cover what happens later.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from msgspec import Struct

from magmobo.contracts.planes import NodeStatus

LIVE_PATH, READY_PATH, STARTUP_PATH = "/livez", "/readyz", "/startupz"
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
UNKNOWN = "unknown"
_HAS_BEEN_READY = ("ready", "degraded")


class ProbeAnswer(Struct, frozen=True):
    """One whole answer."""

    status: int
    body: bytes
    content_type: str = JSON


def wants_verbose(query: str) -> bool:
    """Whether a query string holds `verbose`, as in `?verbose`, `?verbose=1`, but not `?verbose=0`."""
    values = parse_qs(query, keep_blank_values=True).get("verbose", [])
    return bool(values) and values[-1].lower() not in ("0", "false", "no")


def live() -> ProbeAnswer:
    """The event loop turns, or nobody would answer."""
    return _answer("live", is_good=True)


def ready(node: NodeStatus | None, *, verbose: bool = False) -> ProbeAnswer:
    """200 while the node is `ready`, or `degraded` by components alone that are not essential. `None`: nobody can tell,
    hence not ready.

    verbose: text instead of JSON, the state and then a line `name: state/health` for each component, and nothing else:
    details of errors may name hosts and tables.
    """
    state, is_good = (UNKNOWN, False) if node is None else (node.state, _serves(node))
    if not verbose:
        return _answer(state, is_good=is_good)
    components = () if node is None else node.components
    lines = [state, *(f"{one.name}: {one.state}/{one.health}" for one in components)]
    return ProbeAnswer(200 if is_good else 503, "".join(f"{line}\n" for line in lines).encode(), TEXT)


def _serves(node: NodeStatus) -> bool:
    if node.state != "degraded":
        return node.state == "ready"
    return all(
        one.state == "disabled" or (one.state == "running" and one.health != "unhealthy")
        for one in node.components
        if one.essential
    )


class StartupProbe:
    """Remembers that the node was ready. A node that is degraded had been."""

    def __init__(self) -> None:
        self._started = False

    def answer(self, node: NodeStatus | None) -> ProbeAnswer:
        """Asked with the node's present status."""
        self._started = self._started or (node is not None and node.state in _HAS_BEEN_READY)
        return _answer("started" if self._started else "starting", is_good=self._started)


def _answer(state: str, *, is_good: bool) -> ProbeAnswer:
    return ProbeAnswer(200 if is_good else 503, b'{"state":"%s"}' % state.encode())
