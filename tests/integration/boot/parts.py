"""Components that take everything a component can take: sockets, files, locks, children, tasks, subscriptions."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol

from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.events import SystemReady


class Store(Protocol):
    async def read(self) -> bytes: ...


class Cellar(Component):
    """A file under a lock."""

    name = "cellar"
    provides = (Store,)

    def __init__(self, context: Context) -> None:
        self._path = context.data_dir / "cellar.tmp"
        self._file: int | None = None

    async def boot(self) -> None:
        await asyncio.sleep(0)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await asyncio.sleep(0)

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        assert self._file is not None
        return os.pread(self._file, 10, 0)

    async def shutdown(self, timeout_s: float) -> None:
        if self._file is not None:
            self._path.unlink()
            os.close(self._file)
            self._file = None
        await asyncio.sleep(0)


class Port(Component):
    """A listening socket, one connection to it, and a task that serves it."""

    name = "port"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sockets: list[socket.socket] = []

    async def boot(self) -> None:
        loop = asyncio.get_running_loop()
        listening = self._own(socket.create_server(("127.0.0.1", 0)))
        self._context.spawn(self._accept(listening), name="accept")
        client = self._own(socket.socket())
        await loop.sock_connect(client, listening.getsockname())
        await loop.sock_sendall(client, b"hello")
        assert await loop.sock_recv(client, 5) == b"hello"

    def _own(self, one: socket.socket) -> socket.socket:
        one.setblocking(False)
        self._sockets.append(one)
        return one

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        peer = self._own((await loop.sock_accept(listening))[0])
        await loop.sock_sendall(peer, await loop.sock_recv(peer, 5))
        await asyncio.Event().wait()

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await asyncio.sleep(0)

    async def shutdown(self, timeout_s: float) -> None:
        for one in self._sockets:
            # the loop must not watch a descriptor that somebody else gets next
            with suppress(ValueError, OSError):
                asyncio.get_running_loop().remove_reader(one.fileno())
            one.close()
        await asyncio.sleep(0)


class Child(Component):
    """A child process, spoken to over its pipes.

    It is made by `subprocess`, as MagDS makes its server: uvloop loses a descriptor when `create_subprocess_exec` is
    cancelled at the wrong moment.
    """

    name = "child"

    def __init__(self, context: Context, store: Needs[Store]) -> None:
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None

    async def boot(self) -> None:
        await self._store.read()
        self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        await asyncio.sleep(0)

    async def start(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"hello")
        heard = asyncio.get_running_loop().create_future()
        descriptor = self._process.stdout.fileno()
        asyncio.get_running_loop().add_reader(descriptor, lambda: heard.done() or heard.set_result(None))
        try:
            await heard
        finally:
            asyncio.get_running_loop().remove_reader(descriptor)
        assert self._process.stdout.read(5) == b"hello"

    async def shutdown(self, timeout_s: float) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        await asyncio.sleep(0)


class Watcher(Component):
    """Subscriptions, delayed events and tasks, some of which end badly when they are cancelled."""

    name = "watcher"

    def __init__(self, context: Context, store: Needs[Store]) -> None:
        self._context, self._store = context, store

    async def boot(self) -> None:
        self._context.bus.on("component.*", self._heard)
        self._context.bus.on(SystemReady, self._heard_later)
        self._context.spawn(self._tick(), name="tick")
        await self._store.read()

    async def start(self) -> None:
        self._context.bus.on("system.**", self._heard)
        self._context.spawn(self._slow_to_end(), name="slow")
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(self._read())

    def _read(self) -> Coroutine[Any, Any, bytes]:
        return self._store.read()

    def _heard(self, _envelope: object) -> None: ...

    async def _heard_later(self, _envelope: object) -> None:
        await asyncio.sleep(0)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.001)

    async def _slow_to_end(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            raise RuntimeError("not in order")


PARTS: tuple[type[Component], ...] = (Cellar, Port, Child, Watcher)
