"""A node with gateway, realtime and the adapters, and workers in plain processes behind them."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from msgspec import Struct, json
from tests.integration.extensions.mediation import Mediation, mediation
from tests.integration.maggate.support import SECRET, as_login, load_schema
from tests.unit.extensions.api.support import Names

from magmobo.components.listener.component import ListenerComponent
from magmobo.components.magds.component import MagDS
from magmobo.components.maggate.component import MagGate
from magmobo.components.magws.component import MagWS
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.planes import Gateway, Listener, Realtime
from magmobo.extensions.adapters.maggate import Endpoints
from magmobo.extensions.adapters.magws import RealtimeMethods
from magmobo.extensions.api.http import HttpMethods
from magmobo.kernel.kernel import Kernel
from magmobo.testing.harness import running_kernel

KEY, APP_SECRET, APP_ID = "app-key", "app-secret", "42"
DEADLINE_S = 60.0


class Doors(Component):
    """As much of the plane as the adapters need of a node."""

    name = "doors"

    def __init__(
        self, context: Context, listener: Needs[Listener], gateway: Needs[Gateway], realtime: Needs[Realtime]
    ) -> None:
        self.context, self.listener, self.gateway, self.realtime = context, listener, gateway, realtime
        self.endpoints: Endpoints | None = None

    async def stop(self) -> None:
        if self.endpoints is not None:
            self.endpoints.stop()


class Got(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.decode(self.body)


class Outdoors(Struct):
    """The node as clients see it, and the plane behind it."""

    kernel: Kernel
    plane: Mediation
    endpoints: Endpoints
    url: str

    @property
    def realtime_url(self) -> str:
        return self.kernel.status().urls["realtime"]

    async def fetch(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Got:
        """One request over a connection of its own."""

        def run() -> Got:
            with closing(
                http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=DEADLINE_S)
            ) as connection:
                connection.request(method, path, body, dict(headers))
                response = connection.getresponse()
                got = {name.lower(): value for name, value in response.getheaders()}
                return Got(response.status, got, response.read())

        return await asyncio.to_thread(run)


@asynccontextmanager
async def outdoors(
    dsn: str, folder: Path, *, names: Mapping[str, Any] = {}, networks: Sequence[str] = ()
) -> AsyncIterator[Outdoors]:
    """`names` and `networks` are what requests to the outside find."""
    load_schema(dsn)
    config = {
        "listener": {"port": 0},
        "magds": {"dsn": as_login(dsn)},
        "maggate": {"anonymous_role": "gate_anon", "jwt": {"secret": SECRET}},
        "magws": {"apps": [{"id": APP_ID, "key": KEY, "secret": APP_SECRET}], "tables": []},
    }
    async with (
        running_kernel(ListenerComponent, MagDS, MagGate, MagWS, Doors, config=config) as kernel,
        mediation(folder) as plane,
    ):
        doors = kernel.assembly.board.slot("doors").component
        assert isinstance(doors, Doors)
        gatekeeper = plane.gatekeeper
        requests = HttpMethods(denied=gatekeeper.denied, networks=networks, resolve=Names(**names))
        plane.stack.push_async_callback(requests.close)
        realtime = RealtimeMethods(doors.realtime, denied=gatekeeper.denied)
        plane.methods.extend([*requests.methods(), *realtime.methods()])
        doors.endpoints = endpoints = Endpoints(
            doors.listener, doors.gateway, doors.context.hooks, holds=gatekeeper.holds, log=doors.context.log,
            hide=doors.context.hide,
        )  # fmt: skip
        endpoints.start()
        yield Outdoors(kernel, plane, endpoints, kernel.status().urls["http"].rstrip("/"))
