"""The component inside a real kernel, with the real listener and storage, asked over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import psycopg
import pytest
from tests.integration.maggate.support import SECRET, as_login, load_schema, token

from magmobo.components.listener.component import ListenerComponent
from magmobo.components.magds.component import MagDS
from magmobo.components.maggate.component import MagGate
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import Gateway
from magmobo.kernel.errors import BootFailed
from magmobo.kernel.kernel import Kernel
from magmobo.testing.harness import check_component, running_kernel


def settings(dsn: str, **maggate: Any) -> dict[str, dict[str, Any]]:
    gate = {"anonymous_role": "gate_anon", "jwt": {"secret": SECRET}} | maggate
    return {"listener": {"port": 0}, "magds": {"dsn": as_login(dsn)}, "maggate": gate}


def base_url(kernel: Kernel) -> str:
    return kernel.status().urls["rest"]


async def fetch(url: str, method: str = "GET", body: str | None = None, headers: Mapping[str, str] = {}) -> Any:
    """Status, headers and body of one request over a fresh connection."""

    def run() -> tuple[int, dict[str, str], bytes]:
        host, _, path = url.removeprefix("http://").partition("/")
        with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
            connection.request(method, "/" + path, body, dict(headers))
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    return await asyncio.to_thread(run)


async def until(url: str, status: int, timeout_s: float = 30.0) -> bytes:
    async with asyncio.timeout(timeout_s):
        while True:
            seen, _, body = await fetch(url)
            if seen == status:
                return bytes(body)
            await asyncio.sleep(0.02)


async def test_requests_over_a_real_port(dsn: str) -> None:
    load_schema(dsn)
    async with running_kernel(ListenerComponent, MagDS, MagGate, config=settings(dsn)) as kernel:
        url = base_url(kernel)
        status, headers, body = await fetch(url + "airlines?carrier=eq.UA")
        head = await fetch(url + "airlines?carrier=eq.UA", "HEAD")
        denied = await fetch(url + "airlines", "POST", '{"carrier": "NW", "name": "x"}')
        missing = await fetch(url + "nothing")

    assert (status, json.loads(body)) == (200, [{"carrier": "UA", "name": "United"}])
    assert headers["content-length"] == str(len(body))
    assert (head[0], head[2]) == (200, b"")
    assert (denied[0], json.loads(denied[2])["code"]) == (401, "42501")
    assert missing[0] == 404


async def test_ddl_by_others_is_followed(dsn: str) -> None:
    load_schema(dsn)
    async with running_kernel(ListenerComponent, MagDS, MagGate, config=settings(dsn)) as kernel:
        url = base_url(kernel)
        assert (await fetch(url + "late"))[0] == 404
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("create table late as select 7 as id; grant select on late to gate_anon")
        assert json.loads(await until(url + "late", 200)) == [{"id": 7}]
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("drop table late")
        assert json.loads(await until(url + "late", 404))["code"] in ("PGRST205", "42P01")


async def test_restarts_leave_nothing_behind(dsn: str) -> None:
    load_schema(dsn)
    await check_component(MagGate, beside=(ListenerComponent, MagDS), config=settings(dsn))


async def test_a_restart_of_the_storage_delays_requests_but_fails_none(dsn: str) -> None:
    load_schema(dsn)
    async with running_kernel(ListenerComponent, MagDS, MagGate, config=settings(dsn)) as kernel:
        url = base_url(kernel) + "airlines?carrier=eq.UA"
        await fetch(url)
        await kernel.stop_component("magds")
        waiting = asyncio.create_task(fetch(url))
        await asyncio.sleep(0.05)
        await kernel.start_component("magds")
        assert (await waiting)[0] == 200


async def test_while_stopped_the_prefix_answers_503(dsn: str) -> None:
    load_schema(dsn)
    async with running_kernel(ListenerComponent, MagDS, MagGate, config=settings(dsn)) as kernel:
        url = base_url(kernel)
        await kernel.stop_component("maggate")
        assert (await fetch(url + "airlines"))[0] == 503
        await kernel.start_component("maggate")
        assert (await fetch(url + "airlines"))[0] == 200


@pytest.mark.parametrize(
    ("role", "reason", "step"),
    [
        ("gate_root", "it is a superuser", "Create a plain role"),
        ("gate_login", "the node's own role", "Create a plain role"),
        ("gate_stranger", "role gate_login may not switch to it", "Run GRANT gate_stranger TO gate_login; and"),
        ("No such", "there is no such role", 'Run CREATE ROLE "No such" NOLOGIN; GRANT "No such" TO gate_login; and'),
    ],
)
async def test_an_anonymous_role_that_requests_may_not_use_stops_the_start(
    dsn: str, role: str, reason: str, step: str
) -> None:
    load_schema(dsn)
    with pytest.raises(BootFailed, match=reason) as failed:
        async with running_kernel(ListenerComponent, MagDS, MagGate, config=settings(dsn, anonymous_role=role)):
            pass
    assert failed.value.next_step().startswith(step)


async def test_nothing_is_open_by_default(dsn: str) -> None:
    load_schema(dsn)
    config = settings(dsn) | {"maggate": {}}
    async with running_kernel(ListenerComponent, MagDS, MagGate, config=config) as kernel:
        answers = [(await fetch(base_url(kernel) + path))[0] for path in ("", "airlines", "nothing")]
        notices = kernel.status().notices

    assert answers == [401, 401, 401]
    assert any("401" in notice for notice in notices)


async def test_who_serves_beside_rest_learns_who_asks_as_rest_would(dsn: str) -> None:
    load_schema(dsn)
    async with running_kernel(ListenerComponent, MagDS, MagGate, config=settings(dsn)) as kernel:
        gateway: Gateway = kernel.assembly.board.slot("maggate").component  # type: ignore[assignment]
        somebody = gateway.identify(f"Bearer {token(role='gate_user')}".encode())
        nobody = gateway.identify(None)
        with pytest.raises(MagError) as forged:
            gateway.identify(f"Bearer {token('another secret of thirty-two bytes', role='gate_user')}".encode())

    assert (somebody.role, somebody.anonymous, json.loads(somebody.claims)) == (
        "gate_user",
        False,
        {"role": "gate_user"},
    )
    assert (nobody.role, nobody.anonymous, forged.value.http_status) == ("gate_anon", True, 401)
    assert gateway.schemas == ("public",)
