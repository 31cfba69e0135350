"""Endpoints of a real process behind the real port, gateway and realtime plane."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.extensions.mediation import grant, installed
from tests.integration.extensions.outdoors import outdoors
from tests.integration.maggate.support import bearer
from tests.integration.magws.support import connected
from tests.unit.extensions.api.support import reply, serving

from magmobo.components.magws import signing
from magmobo.contracts.secret import Secret

CODE = """
@ext.endpoint("POST", "/echo")
async def echo(request):
    return {"role": request.role, "claims": dict(request.claims), "query": request.params, "json": request.json(),
            "secrets": [name for name in request.headers if name in ("authorization", "cookie")]}

@ext.endpoint("GET", "/open")
def open_(request):
    return "hello " + (request.role or "nobody")

@ext.endpoint("GET", "/broken")
async def broken(request):
    raise ValueError("the password is hunter2")

@ext.endpoint("POST", "/shout")
async def shout(request):
    await ext.realtime.broadcast("private-ops", "shouted", request.json())

@ext.endpoint("GET", "/relay")
async def relay(request):
    return (await ext.http.get(request.params["url"])).body
"""
ENDPOINTS = [
    {"method": "POST", "path": "/echo"},
    {"method": "GET", "path": "/open", "public": True},
    {"method": "GET", "path": "/broken"},
    {"method": "POST", "path": "/shout"},
    {"method": "GET", "path": "/relay"},
]
GRANTS = ("api.register_endpoint", "realtime.broadcast", "network.outbound")
USER = bearer(role="gate_user", sub="7")


async def test_requests_are_answered_by_the_extensions_process(dsn: str, tmp_path: Path) -> None:
    async with outdoors(dsn, tmp_path / "node") as node:
        worker = await node.plane.running(installed(tmp_path, "helper", CODE, endpoints=ENDPOINTS, grants=GRANTS))
        await node.endpoints.attach(worker)
        echo = await node.fetch("/ext/helper/echo?a=b%20c", "POST", b'{"n":1}', USER | {"Cookie": "session=1"})
        assert echo.json == {
            "role": "gate_user", "claims": {"role": "gate_user", "sub": "7"}, "query": {"a": "b c"}, "json": {"n": 1},
            "secrets": [],
        }  # fmt: skip
        assert (await node.fetch("/ext/helper/open")).body == b"hello gate_anon"
        assert (await node.fetch("/ext/helper/open", headers=USER)).body == b"hello gate_user"
        assert [
            (await node.fetch("/ext/helper/echo", "POST", b"{}")).status,
            (await node.fetch("/ext/helper/echo", "POST", b"{}", bearer(role="postgres"))).status,
            (await node.fetch("/ext/helper/open", headers={"Authorization": "Bearer a.b.c"})).status,
            (await node.fetch("/ext/helper/none", headers=USER)).status,
            (await node.fetch("/ext/nobody/open")).status,
        ] == [401, 403, 401, 404, 404]
        broken = await node.fetch("/ext/helper/broken", headers=USER)
        assert (broken.status, broken.json["code"], b"hunter2" in broken.body) == (502, "MAG-EXT-278", False)

        worker.kill()
        assert (await node.fetch("/ext/helper/open")).status == 503
        node.endpoints.detach("helper")
        assert (await node.fetch("/ext/helper/open")).status == 404


async def test_a_message_of_an_extension_reaches_subscribers(dsn: str, tmp_path: Path) -> None:
    extension = installed(tmp_path, "helper", CODE, endpoints=ENDPOINTS, grants=GRANTS)
    extension.grants |= {"realtime.broadcast": grant("realtime.broadcast", scope={"channels": ["private-ops"]})}
    async with outdoors(dsn, tmp_path / "node") as node, connected(node.realtime_url) as client:
        auth = signing.channel_auth("app-key", Secret("app-secret"), client.socket_id, "private-ops")
        await client.send("pusher:subscribe", {"channel": "private-ops", "auth": auth})
        await client.until("pusher_internal:subscription_succeeded")
        await node.endpoints.attach(await node.plane.running(extension))
        assert (await node.fetch("/ext/helper/shout", "POST", b'{"late": true}', USER)).status == 204
        *_, message = await client.until("shouted")
        assert (message["channel"], message["data"]) == ("private-ops", {"late": True})

        extension.grants |= {"realtime.broadcast": grant("realtime.broadcast", scope={"channels": []})}
        assert (await node.fetch("/ext/helper/shout", "POST", b"{}", USER)).status == 502
        [denied] = node.plane.denied
        assert (denied.actor, denied.capability) == ("extension:helper", "realtime.broadcast")


async def test_an_extension_asks_the_outside_through_the_node(dsn: str, tmp_path: Path) -> None:
    async with (
        serving(reply(200, b"from outside")) as server,
        outdoors(dsn, tmp_path / "node", names={"api.test": "127.0.0.1"}, networks=["127.0.0.1/32"]) as node,
    ):
        extension = installed(tmp_path, "helper", CODE, endpoints=ENDPOINTS, grants=GRANTS)
        hosts = {"hosts": [f"api.test:{server.port}"]}
        extension.grants |= {"network.outbound": grant("network.outbound", scope=hosts)}
        await node.endpoints.attach(await node.plane.running(extension))
        fine = await node.fetch(f"/ext/helper/relay?url=http://api.test:{server.port}/", headers=USER)
        ours = await node.fetch(f"/ext/helper/relay?url={node.url}/rest/v1/", headers=USER)
        assert (fine.status, fine.body) == (200, b"from outside")
        assert ours.status == 502


async def test_another_version_takes_over_without_a_failed_request(dsn: str, tmp_path: Path) -> None:
    code = '@ext.endpoint("GET", "/open")\ndef open_(request):\n    return "v%d"\n'
    async with outdoors(dsn, tmp_path / "node") as node:
        workers = [
            await node.plane.running(
                installed(tmp_path / str(number), "helper", code % number, endpoints=ENDPOINTS[1:2], grants=GRANTS)
            )
            for number in (1, 2)
        ]
        await node.endpoints.attach(workers[0])
        seen: list[bytes] = []

        async def ask() -> None:
            while b"v2" not in seen:
                got = await node.fetch("/ext/helper/open")
                assert got.status == 200
                seen.append(got.body)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            asking = [group.create_task(ask()) for _ in range(4)]
            while len(seen) < 20:
                await asyncio.sleep(0.001)
            await node.endpoints.attach(workers[1])
            await workers[0].drain(5.0)
            await asyncio.wait(asking)
        assert set(seen) == {b"v1", b"v2"}
