"""The component `console`: mounts the page on the public port, and leads to it from the root."""

from __future__ import annotations

from magmobo.console.app import PREFIX, ConsoleApp
from magmobo.console.sessions import LoginThrottle, Sessions
from magmobo.contracts.component import Announcement, Component, Context, Needs, Wants
from magmobo.contracts.planes import Listener, Mount, Operators, Realtime


class Console(Component):
    """Shows components, live changes and settings to whoever has the admin token."""

    name = "console"
    essential = False

    def __init__(
        self, context: Context, listener: Needs[Listener], operators: Needs[Operators], realtime: Wants[Realtime]
    ) -> None:
        self._listener, self._operators, self._realtime = listener, operators, realtime
        self._hide = context.hide
        self._sessions = Sessions(context.clock, lambda: operators.admin_token_number)
        self._throttle = LoginThrottle(context.clock)
        self._mounts: list[Mount] = []

    async def start(self) -> None:
        # Browsers send a cookie to every port of a host: the name keeps two nodes of one machine apart.
        app = ConsoleApp(
            operators=self._operators,
            realtime=self._realtime,
            sessions=self._sessions,
            throttle=self._throttle,
            cookie_name=f"mag_console_{self._listener.address[1]}",
            hide=self._hide,
        )
        served = app.asgi()
        self._mounts = [self._listener.mount_http(prefix, served) for prefix in (PREFIX, "/")]

    async def stop(self) -> None:
        for mount in self._mounts:
            mount.release()
        self._mounts = []
        self._sessions.end_all()

    def announce(self) -> Announcement:
        return Announcement(urls={"console": f"{self._listener.base_url}{PREFIX}"})
