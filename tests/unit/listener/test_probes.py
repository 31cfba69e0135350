"""Liveness asks nobody, readiness is the node's state, startup never goes back; strangers learn no component's name."""

from __future__ import annotations

from typing import Any

import pytest

from magmobo.components.listener.errors import MethodNotAllowed
from magmobo.components.listener.probes import Probes
from magmobo.contracts.planes import ComponentStatus, NodeStatus
from magmobo.contracts.probes import ready, wants_verbose

COMPONENTS = (
    ComponentStatus("magds", "running", "unhealthy", 2, "now", "connection to db.internal failed"),
    ComponentStatus("magws", "recovering", "unknown", 0, "now"),
)
HERE, FAR = ("127.0.0.1", 5), ("192.0.2.7", 5)


class Node:
    def __init__(self, state: str = "ready") -> None:
        self.state, self.asked = state, 0

    def status(self) -> NodeStatus:
        self.asked += 1
        return NodeStatus("test", self.state, "test", "0", 1.0, COMPONENTS)


async def ask(
    probes: Probes,
    path: str,
    query: bytes = b"",
    *,
    client: tuple[str, int] | None = HERE,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    method: str = "GET",
) -> tuple[int, str]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"method": method, "path": path, "query_string": query, "client": client, "headers": list(headers)}
    await probes(scope, None, send)
    return sent[0]["status"], sent[1]["body"].decode()


def probes_of(node: Node | None) -> Probes:
    return Probes(node)  # type: ignore[arg-type]


async def test_liveness_asks_nobody() -> None:
    node = Node("failed")
    assert await ask(probes_of(node), "/livez") == (200, '{"state":"live"}')
    assert node.asked == 0
    assert (await ask(probes_of(None), "/livez"))[0] == 200


@pytest.mark.parametrize("state", ["booting", "degraded", "stopping", "stopped", "failed"])
async def test_readiness_is_the_state_of_the_node(state: str) -> None:
    assert await ask(probes_of(Node()), "/readyz") == (200, '{"state":"ready"}')
    assert await ask(probes_of(Node(state)), "/readyz") == (503, f'{{"state":"{state}"}}')
    assert await ask(probes_of(None), "/readyz") == (503, '{"state":"unknown"}')


async def test_startup_is_good_for_ever_once_the_node_was_ready() -> None:
    node = Node("booting")
    probes = probes_of(node)
    assert await ask(probes, "/startupz") == (503, '{"state":"starting"}')
    node.state = "ready"
    assert (await ask(probes, "/startupz"))[0] == 200
    for node.state in ("degraded", "stopping", "failed"):
        assert await ask(probes, "/startupz") == (200, '{"state":"started"}')
        assert (await ask(probes, "/readyz"))[0] == 503


@pytest.mark.parametrize("state", ["ready", "degraded"])
async def test_startup_has_seen_what_readiness_saw(state: str) -> None:
    node = Node(state)
    probes = probes_of(node)
    await ask(probes, "/readyz")
    node.state = "stopping"
    assert (await ask(probes, "/startupz"))[0] == 200


async def test_verbose_shows_states_and_no_details_to_who_is_at_the_machine() -> None:
    status, text = await ask(probes_of(Node("degraded")), "/readyz", b"verbose")
    assert status == 503
    assert text == "degraded\nmagds: running/unhealthy\nmagws: recovering/unknown\n"
    assert (await ask(probes_of(Node()), "/readyz", b"verbose=1", client=("::ffff:127.0.0.1", 1)))[1].count("\n") == 3
    assert (await ask(probes_of(Node()), "/readyz", b"verbose", client=("::1", 1)))[1].count("\n") == 3
    assert await ask(probes_of(None), "/readyz", b"verbose") == (503, "unknown\n")


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        (FAR, ()),
        (None, ()),
        (("not an address", 1), ()),
        (("::ffff:192.0.2.7", 1), ()),
        (HERE, ((b"x-forwarded-for", b"127.0.0.1"),)),
        (HERE, ((b"forwarded", b"for=127.0.0.1"),)),
        (HERE, ((b"via", b"1.1 proxy"),)),
    ],
)
async def test_a_stranger_is_answered_as_if_it_had_asked_plainly(client: Any, headers: Any) -> None:
    answer = await ask(probes_of(Node()), "/readyz", b"verbose", client=client, headers=headers)
    assert answer == (200, '{"state":"ready"}')


@pytest.mark.parametrize(
    ("query", "verbose"),
    [
        ("", False),
        ("verbose", True),
        ("verbose=1", True),
        ("verbose=0", False),
        ("verbose=false", False),
        ("v=1", False),
    ],
)
def test_what_counts_as_verbose(query: str, verbose: bool) -> None:
    assert wants_verbose(query) is verbose


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
async def test_only_reading_is_allowed(path: str) -> None:
    with pytest.raises(MethodNotAllowed):
        await ask(probes_of(Node()), path, method="POST")


@pytest.mark.parametrize(
    ("state", "health", "essential", "status"),
    [
        ("quarantined", "unknown", False, 200),
        ("running", "unhealthy", False, 200),
        ("stopped", "unknown", True, 503),
        ("running", "unhealthy", True, 503),
        ("running", "degraded", True, 200),
        ("disabled", "unknown", True, 200),
    ],
)
def test_only_what_is_essential_makes_a_degraded_node_unready(
    state: str, health: str, essential: bool, status: int
) -> None:
    well = ComponentStatus("magds", "running", "healthy", 0, "")
    other = ComponentStatus("other", state, health, 0, "", essential=essential)
    node = NodeStatus("test", "degraded", "test", "0", 1.0, (well, other))
    assert ready(node).status == ready(node, verbose=True).status == status
