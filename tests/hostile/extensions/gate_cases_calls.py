"""Cases 15 and 37 to 40 on a node: what is asked of the node itself, by the protocol and around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from tests.hostile.extensions.node_gate import ALLOWED, Gate, Scene
from tests.unit.extensions.api.support import Names

from magmobo.contracts.errors import MagError
from magmobo.extensions.component import ExtensionPlane

FAULTS = (
    "four gigabytes", "nothing", "garbage", "deep", "wrong type", "unknown kind", "unknown id", "as the node",
    "ready twice", "half a frame", "another pong", "let go",
)  # fmt: skip


async def ask(gate: Gate, asker: str, asked: str, /, **arguments: Any) -> dict[str, Any]:
    """What came of one question of an extension."""
    answer: dict[str, Any] = await gate.run(asker, "ask", method=asked, arguments=arguments)
    return answer


async def denied(gate: Gate, scene: Scene, what: str, answer: Mapping[str, Any], *codes: str) -> None:
    """It was refused, with one of these codes."""
    kind = "stopped" if answer.get("code") in codes else "leaked"
    scene.note(kind, what, f"{answer.get('code', '')} {answer.get('message', answer)}")


# ---------------------------------------------------------------- 15: requests


@asynccontextmanager
async def redirecting(places: list[str]) -> AsyncIterator[int]:
    """A server at the one address that may be reached, which sends everybody on: to the next place each time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 302 Found\r\nLocation: {places.pop(0)}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, ALLOWED, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def outward(gate: Gate, scene: Scene) -> None:
    """First what is refused as it stands, then names that lead inside, by a hostile name server and by redirects."""
    since = gate.head
    own = gate.kernel.status().urls["http"].rstrip("/").rpartition(":")[2]
    async with redirecting(places := []) as port:
        names = {
            "inside.test": "127.0.0.1", "mapped.test": "::ffff:127.0.0.1", "metadata.test": "169.254.169.254",
            "evil.test": ALLOWED, "rebinding.test": [ALLOWED, "127.0.0.1"], "both.test": [["127.0.0.1", "10.0.0.1"]],
        }  # fmt: skip
        hosts = [f"{name}:{number}" for name in ("localhost", *names) for number in (own, port)]
        asked = [{"name": "network.outbound", "reason": "It would do harm with it.", "hosts": hosts}]
        await gate.admit("outward", capabilities=asked)
        for url in (
            f"http://127.0.0.1:{own}/", "http://169.254.169.254/latest/meta-data/", f"http://[::ffff:127.0.0.1]:{own}/",
            f"http://2130706433:{own}/", f"http://0x7f.1:{own}/", "http://0.0.0.0/", "file:///etc/passwd",
            f"http://evil.test:{port}@127.0.0.1:{own}/", "gopher://localhost/",
        ):  # fmt: skip
            await fetch(gate, scene, url, "MAG-EXT-280")
        await fetch(gate, scene, f"http://evil.test.example:{port}/", "MAG-EXT-281")
        await fetch(gate, scene, f"http://localhost:{own}/", "MAG-EXT-282")
        believe(gate, names)
        for name in ("inside", "mapped", "metadata", "both"):
            await fetch(gate, scene, f"http://{name}.test:{own}/", "MAG-EXT-282")
        for place, code in (
            (f"http://inside.test:{own}/", "MAG-EXT-282"), ("http://elsewhere.test/", "MAG-EXT-281"),
            (f"http://127.0.0.1:{own}/", "MAG-EXT-280"), ("file:///etc/passwd", "MAG-EXT-280"),
        ):  # fmt: skip
            places.append(place)
            await fetch(gate, scene, f"http://evil.test:{port}/", code)
        places.append(f"http://rebinding.test:{port}/again")
        await fetch(gate, scene, f"http://rebinding.test:{port}/", "MAG-EXT-282")
        assert not places, "nobody came to where the redirects are"
    await gate.must_record(scene, since, "extension.denied", "outward", "address")
    await gate.must_record(scene, since, "extension.denied", "outward", "host")


async def fetch(gate: Gate, scene: Scene, url: str, code: str) -> None:
    """One request, which is refused for this reason."""
    await denied(gate, scene, url, await ask(gate, "outward", "http.request", method="GET", url=url), code)


def believe(gate: Gate, names: Mapping[str, Any]) -> None:
    """Have the node ask a name server of the attacker."""
    component = gate.kernel.assembly.board.slot("extensions").component
    assert isinstance(component, ExtensionPlane)
    server = Names()
    server.names = dict(names)
    http = component.plane()._rooms.http
    http._resolve = server
    http.forget("outward")  # its connections were made with the other one


# ---------------------------------------------------------------- 37: frames


async def frames(gate: Gate, scene: Scene) -> None:
    await gate.admit("frames")
    for fault in FAULTS:
        since = gate.head
        try:
            answer = await gate.run("frames", "send", fault=fault, timeout_s=10.0)
        except MagError as error:
            scene.note("stopped", fault, f"{error.code} {error}")
        else:
            scene.note("leaked", fault, str(answer))
            continue
        await gate.must_record(scene, since, "extension.escape_attempt", "frames")
        if not await gate.until(lambda: _stopped(gate, "frames")):
            scene.note("leaked", fault, "the extension was not stopped after it")
        await gate.command("extension:enable", id="frames")


async def _stopped(gate: Gate, extension_id: str) -> bool:
    return await gate.state(extension_id) == "disabled"


# ---------------------------------------------------------------- 38: floods


async def floods(gate: Gate, scene: Scene) -> None:
    since = gate.head
    await gate.admit("flood")
    await gate.admit("slow")
    counts = await gate.run(
        "flood", "flood", method="events.publish", arguments={"name": "more", "payload": {}}, times=3000
    )
    kind = "stopped" if counts.get("MAG-EXT-142", 0) >= 1000 and counts.get("ok", 0) <= 1100 else "leaked"
    scene.note(kind, "3000 events at once", json.dumps(counts))
    await gate.must_record(scene, since, "extension.denied", "flood", "rate")
    counts = await gate.run(
        "flood", "flood", method="kv.put", arguments={"key": "k"}, grow="value", size=70_000, times=5
    )
    scene.note("leaked" if "ok" in counts else "stopped", "values that are too large", json.dumps(counts))
    counts = await gate.run(
        "flood", "flood", method="events.publish", arguments={"name": "big"}, grow="payload", size=3_000_000, times=3
    )
    scene.note("leaked" if "ok" in counts else "stopped", "payloads of 3 MB", json.dumps(counts))
    assert (await gate.run("slow", "publish", times=200))["through"] == 200
    began = await gate.until(lambda: _has_begun(gate))
    shown = await gate.command("extension:show", id="slow")
    kind = "stopped" if began and shown["backlog"] >= 100 else "leaked"
    scene.note(kind, "a subscriber without end", f"{shown['backlog']} events wait for it")
    assert await gate.run("quiet", "hello") == "hello"


async def _has_begun(gate: Gate) -> bool:
    return bool(await gate.run("slow", "count") >= 1)


# ---------------------------------------------------------------- 39: circles


@asynccontextmanager
async def listening(gate: Gate, channel: str) -> AsyncIterator[None]:
    """A client of this channel, by the Pusher protocol: messages to nobody are not sent at all."""
    port = int(gate.kernel.status().urls["http"].rstrip("/").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        "GET /app/gate-key?protocol=7 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    text = json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}}).encode()
    writer.write(request.encode() + bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)
    try:
        await reader.readuntil(b"subscription_succeeded")
        yield
    finally:
        writer.close()


async def circles(gate: Gate, scene: Scene) -> None:
    async with listening(gate, "loop"):
        await go_round(gate, scene)


async def go_round(gate: Gate, scene: Scene) -> None:
    """A message leads to a hook, which leads to a message: four deep, and no further."""
    point = gate.kernel.services.hooks.point("realtime.before_broadcast")
    point.spec = msgspec.structs.replace(point.spec, timeout_s=10.0)  # they are counted: none may be late by chance
    for extension_id, together, runs in (("loop", ("loop",), 4), ("circle", ("loop", "circle"), 30)):
        since, warned = gate.head, len(gate.warnings)
        await gate.admit(extension_id, hooks=[{"point": point.spec.name}])
        before = await hooks_run(gate, together)
        await gate.run("loop", "start")
        await gate.until(lambda before=before, wanted=runs: _have_run(gate, before, wanted))
        await asyncio.sleep(0.5)  # the time in which one that is not stopped would go on
        after = await hooks_run(gate, together)
        ran = sum(after.values()) - sum(before.values())
        paths = [text for text in gate.warnings[warned:] if "hooks led to it 4 deep" in text and " -> " in text]
        what = " and ".join(together)
        scene.note("stopped" if ran == runs and paths else "leaked", what, f"{ran} hooks ran; {paths[:1]}")
        await gate.must_record(scene, since, "extension.calls", extension_id, "realtime.before_broadcast")


async def hooks_run(gate: Gate, extensions: Sequence[str]) -> dict[str, int]:
    """How often the hook of each has run."""
    return {one: (await gate.run(one, "said"))["runs"] for one in extensions}


async def _have_run(gate: Gate, before: Mapping[str, int], wanted: int) -> bool:
    return sum((await hooks_run(gate, list(before))).values()) - sum(before.values()) >= wanted


# ---------------------------------------------------------------- 40: rights


async def rights(gate: Gate, scene: Scene) -> None:
    await gate.admit("calls")
    since = gate.head
    answer = await ask(gate, "calls", "http.request", method="GET", url="https://example.com/")
    await denied(gate, scene, "a capability that it did not ask for", answer, "MAG-EXT-141")
    await gate.must_record(scene, since, "extension.denied", "calls", "network.outbound")
    answer = await ask(gate, "calls", "events.publish", name="fine", payload={})
    assert "answer" in answer, answer
    await gate.command("extension:revoke", id="calls", wanted="api.emit_events")
    since = gate.head
    answer = await ask(gate, "calls", "events.publish", name="fine", payload={})
    await denied(gate, scene, "a capability that was taken back", answer, "MAG-EXT-141")
    await gate.must_record(scene, since, "extension.denied", "calls", "api.emit_events")
    await gate.command("extension:grant", id="calls", wanted="api.emit_events")
    since = gate.head
    for name in ("auth.login", "security.capability_denied", "system.boot", "extension.escape_attempt"):
        answer = await ask(gate, "calls", "events.publish", name=name, payload={})
        await denied(gate, scene, f"an event called {name}", answer, "MAG-EXT-242", "MAG-EXT-146")
    await gate.must_record(scene, since, "extension.denied", "calls", "events.publish")
    since = gate.head
    for channel in ("private-db.public.orders", "db.public.orders", "private-news", "elsewhere"):
        answer = await ask(gate, "calls", "realtime.broadcast", channels=[channel], event="e", data="x")
        await denied(gate, scene, f"channel {channel}", answer, "MAG-EXT-270", "MAG-EXT-271")
    await gate.must_record(scene, since, "extension.denied", "calls", "realtime.broadcast")
    for method, arguments in (
        ("events.publish", {"name": "fine", "extension_id": "quiet"}),
        ("kv.get", {"key": "k", "extension_id": "quiet"}),
        ("events.subscribe", {"subscription": "own"}),
    ):
        answer = await ask(gate, "calls", method, **arguments)
        await denied(gate, scene, f"as somebody else: {method}", answer, "MAG-EXT-146", "MAG-EXT-245")
    since = gate.head
    answer = await ask(gate, "calls", "kernel.stop")
    await denied(gate, scene, "a method that is none", answer, "MAG-EXT-145")
    await gate.must_record(scene, since, "extension.denied", "calls", "unknown_method")


CASES: Mapping[int, Callable[[Gate, Scene], Awaitable[None]]] = {
    15: outward, 37: frames, 38: floods, 39: circles, 40: rights,
}  # fmt: skip
