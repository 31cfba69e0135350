"""Who is connected to this node, and who may come in.

Boundary: apps, their limits and their connections; of channels it knows nothing. Invariant: a client is counted from
`add` to `remove`, also after its app is gone from the settings.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence

from magmobo.components.magws.config import AppConfig, MagWSConfig
from magmobo.components.magws.connection import Client
from magmobo.components.magws.errors import NoSuchPath, OverCapacity, OverQuota, UnknownApp, UnsupportedProtocol
from magmobo.components.magws.protocol.closing import CloseCode
from magmobo.components.magws.protocol.session import Limits
from magmobo.contracts.websocket import Upgrade

PREFIX = "/app/"
VERSIONS = range(5, 8)


class Clients:
    """Of one node, by app and socket id. `limits` is what a session may do, by app; once it is `closing` nobody comes
    in.
    """

    def __init__(self, config: MagWSConfig) -> None:
        self._know_apps(config)
        self.by_app: dict[str, dict[str, Client]] = {app.id: {} for app in config.apps}
        self._count = 0
        self.closing = False

    def adopt(self, config: MagWSConfig) -> Sequence[Client]:
        """Go on with these apps and limits. Returns: who is connected for an app that is gone."""
        self._know_apps(config)
        apps = {app.id: app for app in config.apps}
        self.by_app = {app_id: {} for app_id in apps} | {id_: them for id_, them in self.by_app.items() if them}
        homeless: list[Client] = []
        for client in self:
            if (app := apps.get(client.app.id)) is not None:
                client.adopt(app, self.limits[app.id])
            else:
                homeless.append(client)
        return homeless

    def app_for(self, upgrade: Upgrade) -> AppConfig:
        """The app that a new connection is for. Raises: ProtocolError when it is not wanted."""
        key = upgrade.path.removeprefix(PREFIX)
        if not upgrade.path.startswith(PREFIX) or not key or "/" in key:
            raise NoSuchPath("the address is not /app/<key>")
        app = self._apps.get(key)
        if app is None:
            raise UnknownApp("no app has this key")
        _check_version(upgrade.query)
        if self.closing or self._count >= self._max_connections:
            raise OverCapacity("the server takes no more connections now")
        if len(self.by_app[app.id]) >= app.max_connections:
            raise OverQuota("the app has as many connections as it may have")
        return app

    def new_socket_id(self, app_id: str) -> str:
        """One that no client of the app has."""
        while True:
            socket_id = f"{secrets.randbelow(10**9)}.{secrets.randbelow(10**9)}"
            if socket_id not in self.by_app[app_id]:
                return socket_id

    def add(self, client: Client) -> None:
        """Its handshake is done."""
        self.by_app[client.app.id][client.socket_id] = client
        self._count += 1

    def remove(self, client: Client) -> None:
        """It is gone; harmless for one that never came."""
        if self.by_app[client.app.id].pop(client.socket_id, None) is not None:
            self._count -= 1

    def has(self, client: Client) -> bool:
        """Whether it is still connected."""
        return client.socket_id in self.by_app.get(client.app.id, ())

    def __iter__(self) -> Iterator[Client]:
        """Who is connected now; clients may leave meanwhile."""
        for clients in self.by_app.values():
            yield from list(clients.values())

    def __len__(self) -> int:
        return self._count

    def _know_apps(self, config: MagWSConfig) -> None:
        self._max_connections = config.max_connections
        self._apps = {app.key: app for app in config.apps}
        self.limits: Mapping[str, Limits] = {app.id: _limits(config, app) for app in config.apps}


def _limits(config: MagWSConfig, app: AppConfig) -> Limits:
    return Limits(
        activity_timeout_s=config.activity_timeout_s,
        max_channels=config.max_channels,
        client_events=app.client_events,
        client_events_per_s=app.client_events_per_s,
        max_event_bytes=app.max_event_bytes,
    )


def _check_version(query: Mapping[str, str]) -> None:
    version = query.get("protocol")
    if version is None:
        raise UnsupportedProtocol("no protocol version given", CloseCode.NO_VERSION)
    if not (version.isascii() and version.isdigit() and len(version) <= 4):
        raise UnsupportedProtocol("the protocol version is not a number", CloseCode.BAD_VERSION_FORMAT)
    if int(version) not in VERSIONS:
        raise UnsupportedProtocol("only protocol versions 5, 6 and 7 are spoken here", CloseCode.UNSUPPORTED_VERSION)
