"""A headless Chromium, and a realtime server of a few lines that the test plays by hand."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import Page, Route, WebSocket, async_playwright, expect

from magmobo.contracts.planes import Listener
from magmobo.contracts.websocket import Upgrade, WebSocketConnection, text_frame

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage",
]  # fmt: skip
expect.set_options(timeout=30_000)  # a busy machine draws late, which is no fault of the page


def chromium_path() -> str:
    """The browser of `scripts/install-browser.sh`; MAG_CHROMIUM names another."""
    found = os.environ.get("MAG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        raise RuntimeError("no Chromium here: run scripts/install-browser.sh")
    return found


@dataclass
class Visit:
    """One page and what it did behind the scenes."""

    page: Page
    foreign_requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)

    async def subscribed(self, channel: str, *, timeout_s: float = 10) -> None:
        """Return once the server has confirmed this channel."""
        async with asyncio.timeout(timeout_s):
            while not any("subscription_succeeded" in frame and channel in frame for frame in self.frames):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def visiting(base_url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> AsyncIterator[Visit]:
    """Open the console in a fresh profile. Requests to any other origin are blocked and noted."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        try:
            context = await browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            visit = Visit(await context.new_page())

            async def guard(route: Route) -> None:
                if route.request.url.startswith(base_url + "/"):
                    await route.continue_()
                else:
                    visit.foreign_requests.append(route.request.url)
                    await route.abort()

            await context.route("**/*", guard)
            visit.page.on("pageerror", lambda error: visit.problems.append(str(error)))
            visit.page.on("websocket", lambda socket: _watch(visit, socket, base_url))
            visit.page.on(
                "console",
                lambda message: visit.problems.append(message.text) if "Content Security" in message.text else None,
            )
            await visit.page.goto(f"{base_url}/console/")
            yield visit
        finally:
            await browser.close()


def _watch(visit: Visit, socket: WebSocket, base_url: str) -> None:
    """The request guard does not see WebSockets, so they are judged here."""
    if not socket.url.startswith(base_url.replace("http", "ws", 1) + "/"):
        visit.foreign_requests.append(socket.url)
    socket.on("framereceived", lambda frame: visit.frames.append(str(frame)))


async def sign_in(page: Page, token: str) -> None:
    await page.get_by_label("Admin token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


class HandPlayedPusher:
    """Speaks as much of the Pusher protocol as the stock client needs, and sends what the test says."""

    def __init__(self, listener: Listener) -> None:
        self.connections: list[WebSocketConnection] = []
        self.subscribed: dict[str, str | None] = {}
        self.hellos: list[object] = []
        self._news = asyncio.Event()
        listener.mount_websocket("/app/", self._session)

    def send(self, channel: str, event: str, data: object) -> None:
        frame = {"event": event, "channel": channel, "data": json.dumps(data)}
        for connection in self.connections:
            connection.send_frames(text_frame(json.dumps(frame).encode()))

    async def wait_for(self, channel: str, *, timeout_s: float = 10) -> None:
        """Return once somebody follows this channel."""
        async with asyncio.timeout(timeout_s):
            while channel not in self.subscribed:
                self._news.clear()
                await self._news.wait()

    def drop_all(self) -> None:
        for connection in self.connections:
            connection.abort()

    def _session(self, _upgrade: Upgrade) -> _HandPlayedSession:
        return _HandPlayedSession(self)


class _HandPlayedSession:
    def __init__(self, pusher: HandPlayedPusher) -> None:
        self._pusher = pusher

    def on_open(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._pusher.connections.append(connection)
        self._say("pusher:connection_established", {"socket_id": "11.22", "activity_timeout": 120})

    def on_text(self, payload: bytes) -> None:
        message = json.loads(payload)
        if message["event"] == "pusher:subscribe":
            channel = message["data"]["channel"]
            self._pusher.subscribed[channel] = message["data"].get("auth")
            self._pusher._news.set()
            self._say("pusher_internal:subscription_succeeded", {}, channel)
        elif message["event"] == "mag:hello":
            self._pusher.hellos.append(message["data"])
        elif message["event"] == "pusher:unsubscribe":
            self._pusher.subscribed.pop(message["data"]["channel"], None)

    def on_close(self, code: int) -> None:
        self._pusher.connections.remove(self._connection)

    def on_server_shutdown(self) -> None:
        self._connection.close(4200)

    def _say(self, event: str, data: object, channel: str | None = None) -> None:
        frame = {"event": event, "data": json.dumps(data)} | ({"channel": channel} if channel else {})
        self._connection.send_frames(text_frame(json.dumps(frame).encode()))
