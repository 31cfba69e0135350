"""Endpoints that do not answer, too much of everything, and channels that are not an extension's.

Cases 38 (slow endpoint, giant payload) and 40 (private channel) of the hostile list, on a whole node.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.extensions.mediation import grant, installed, question, until
from tests.integration.extensions.outdoors import Outdoors, outdoors

from magmobo.extensions.adapters.exchange import MAX_BODY_BYTES
from magmobo.extensions.adapters.maggate import MAX_UNDER_WAY
from magmobo.extensions.workers.errors import HandlerFailed

SLOW = """
@ext.endpoint("POST", "/slow")
async def slow(request):
    await asyncio.sleep(60)

@ext.endpoint("GET", "/giant")
async def giant(request):
    return "x" * 700_000

@ext.endpoint("GET", "/splits")
async def splits(request):
    from magx import Response
    return Response(200, "x", {"location": "/a\\r\\nset-cookie: a=b", "set-cookie": "a=b"})
"""
QUICK = '@ext.endpoint("GET", "/quick")\ndef quick(request):\n    return "quick"\n'
SLOW_ENDPOINTS = [
    {"method": "POST", "path": "/slow", "public": True, "timeout_ms": 30_000},
    {"method": "GET", "path": "/giant", "public": True},
    {"method": "GET", "path": "/splits", "public": True},
]
QUICK_ENDPOINTS = [{"method": "GET", "path": "/quick", "public": True}]
GRANTS = ("api.register_endpoint", "realtime.broadcast")


async def first_line(node: Outdoors, path: str, announced_bytes: int) -> bytes:
    """How the answer begins to a request whose body does not come, but for its first byte."""
    host, _, port = node.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        head = f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: {announced_bytes}\r\n\r\nx"
        writer.write(head.encode())
        async with asyncio.timeout(20):
            return await reader.readline()
    finally:
        writer.close()


async def test_an_endpoint_that_never_answers_costs_its_own_clients_alone(dsn: str, tmp_path: Path) -> None:
    async with outdoors(dsn, tmp_path / "node") as node:
        for extension_id, code, endpoints in (("slow", SLOW, SLOW_ENDPOINTS), ("quick", QUICK, QUICK_ENDPOINTS)):
            made = installed(tmp_path, extension_id, code, endpoints=endpoints, grants=GRANTS)
            await node.endpoints.attach(await node.plane.running(made))
        host, _, port = node.url.removeprefix("http://").partition(":")
        request = (
            b"POST /ext/slow/slow HTTP/1.1\r\nhost: " + f"{host}:{port}".encode() + b"\r\ncontent-length: 1\r\n\r\n"
        )
        flood = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_UNDER_WAY + 50)]
        for _, writer in flood:
            writer.write(request)
        answered: list[bytes] = []

        async def read(reader: asyncio.StreamReader) -> None:
            answered.append(await reader.readline())

        readers = [asyncio.create_task(read(reader)) for reader, _ in flood]
        async with asyncio.timeout(20):
            await until(lambda: len(answered) == 50)
            assert {line.split()[1] for line in answered} == {b"503"}
            assert node.endpoints.under_way() == {"slow": MAX_UNDER_WAY, "quick": 0}
            for _ in range(20):
                assert (await node.fetch("/ext/quick/quick")).body == b"quick"
                assert (await node.fetch("/rest/v1/airlines")).status == 200
            assert len(answered) == 50

            for _, writer in flood:
                writer.close()
            await until(lambda: node.endpoints.under_way()["slow"] == 0)
            await asyncio.wait(readers)
        assert not node.plane.escapes


async def test_bodies_that_trickle_hold_their_places_no_longer_than_the_deadline(dsn: str, tmp_path: Path) -> None:
    endpoints = [{"method": "POST", "path": "/slow", "public": True, "timeout_ms": 100}, *SLOW_ENDPOINTS[1:]]
    async with outdoors(dsn, tmp_path / "node") as node, asyncio.timeout(20):
        made = installed(tmp_path, "slow", SLOW, endpoints=endpoints, grants=GRANTS)
        await node.endpoints.attach(await node.plane.running(made))
        assert (await first_line(node, "/ext/slow/slow", 1_000)).split()[1] == b"504"
        assert node.endpoints.under_way() == {"slow": 0}


async def test_giant_payloads_and_split_answers_are_stopped_both_ways(dsn: str, tmp_path: Path) -> None:
    async with outdoors(dsn, tmp_path / "node") as node:
        made = installed(tmp_path, "slow", SLOW, endpoints=SLOW_ENDPOINTS, grants=GRANTS)
        await node.endpoints.attach(await node.plane.running(made))
        large = await first_line(node, "/ext/slow/slow", MAX_BODY_BYTES + 1)
        giant, splits = await node.fetch("/ext/slow/giant"), await node.fetch("/ext/slow/splits")
        assert large.split()[1] == b"413"
        assert [giant.status, splits.status] == [502, 502]
        assert "set-cookie" not in splits.headers
        assert not node.plane.escapes
        assert not node.plane.crashes


CASTER = """
@ext.command("cast")
async def cast(arguments):
    await ext.realtime.broadcast(arguments[0], arguments[1], "x")
"""


@pytest.mark.parametrize(
    ("channel", "event", "code"),
    [
        ("private-db.public.flights", "update", "MAG-EXT-271"),
        ("db.public.flights", "update", "MAG-EXT-271"),
        ("private-mag.console", "said", "MAG-EXT-271"),
        ("room", "pusher:error", "MAG-EXT-271"),
        ("private-other", "said", "MAG-EXT-270"),
    ],
)
async def test_channels_of_others_are_denied_and_on_record_within_the_call(
    dsn: str, tmp_path: Path, channel: str, event: str, code: str
) -> None:
    async with outdoors(dsn, tmp_path / "node") as node:
        made = installed(tmp_path, "caster", CASTER, commands=[{"name": "cast"}], grants=GRANTS)
        scope = {"channels": ["room", "db.*", "private-db.*", "private-mag.*"]}
        made.grants |= {"realtime.broadcast": grant("realtime.broadcast", scope=scope)}
        worker = await node.plane.running(made)
        with pytest.raises(HandlerFailed, match=code):
            await worker.ask(question("command:cast", {"arguments": [channel, event]}))
        [denied] = node.plane.denied
        assert (denied.actor, denied.capability) == ("extension:caster", "realtime.broadcast")
        [record] = await node.plane.records("extension.denied")
        assert record["actor"] == "extension:caster"
