"""A node's door without a node: `Operators` that answer what they are told to, and remember who asked for what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog
from msgspec import NODEFAULT, Struct, json, structs, to_builtins

from magmobo.admin.data_folder import DataFolder
from magmobo.admin.server import ControlServer
from magmobo.cli.schemadocs import COMMANDS
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.planes import NodeStatus


class Asked(Struct, frozen=True):
    """One command as it came through the door, fields that were left out as the node takes them."""

    command: str
    params: Any
    actor: Actor
    timeout_s: float
    dry_run: bool
    idempotency_key: str


class FakeOperators:
    """`replies`: by command, what to answer: bytes, a Struct, an error to raise, or a function of what was asked that
    gives one of them or a coroutine.
    """

    def __init__(self, replies: Mapping[str, Any]) -> None:
        self.replies = dict(replies)
        self.asked: list[Asked] = []
        self.sent: list[bytes] = []
        self.ended: list[str] = []

    def status(self) -> NodeStatus:
        raise NotImplementedError

    def admin_token_matches(self, candidate: str) -> bool:
        return False

    @property
    def admin_token_number(self) -> int:
        return 1

    async def run(
        self,
        command: str,
        params: bytes = b"{}",
        *,
        actor: Actor,
        timeout_s: float = 30.0,
        dry_run: bool = False,
        idempotency_key: str = "",
    ) -> bytes:
        self.sent.append(params)
        taken = _defaults(command) | json.decode(params)
        asked = Asked(command, taken, actor, timeout_s, dry_run, idempotency_key)
        self.asked.append(asked)
        try:
            reply = self.replies[command]
            if isinstance(reply, Callable):  # type: ignore[arg-type]
                reply = reply(asked)
            if asyncio.iscoroutine(reply):
                reply = await reply
            if isinstance(reply, Exception):
                raise reply
            return reply if isinstance(reply, bytes) else json.encode(reply)
        finally:
            self.ended.append(command)


def _defaults(command: str) -> dict[str, Any]:
    """What the node takes for fields of a command that are not sent; of one that nobody declared, nothing."""
    fields = [field for one in COMMANDS if one.name == command for field in structs.fields(one) if not field.required]
    return {
        field.encode_name: to_builtins(field.default_factory() if field.default is NODEFAULT else field.default)
        for field in fields
    }


@asynccontextmanager
async def serving(path: Path, operators: FakeOperators, **more: Any) -> AsyncIterator[ControlServer]:
    """The door of `operators` in this loop."""
    server = ControlServer(path, operators, log=structlog.wrap_logger(structlog.ReturnLogger(), processors=[]), **more)
    await server.open()
    try:
        yield server
    finally:
        await server.hang_up()


@contextmanager
def fake_node(folder: Path, operators: FakeOperators) -> Iterator[FakeOperators]:
    """The same in a thread of its own, for callers that block. `node:stop` ends it."""
    loop = asyncio.new_event_loop()
    opened, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        operators.replies.setdefault("node:stop", stopping)
        async with serving(DataFolder(folder).control_socket, operators):
            opened.set()
            await stop.wait()

    def stopping(_asked: Asked) -> bytes:
        loop.call_later(0.01, stop.set)
        return b'{"pid": 7}'

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert opened.wait(10)
        yield operators
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
