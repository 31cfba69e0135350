"""A consumer's handle survives its provider: calls wait, then go on or fail as unavailable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest

from magmobo.contracts.errors import Unavailable
from magmobo.kernel.handles import Handle, Link


class Store(Protocol):
    async def get(self, key: str) -> str: ...
    def session(self, *, name: str) -> AbstractAsyncContextManager[str]: ...
    def keys(self) -> list[str]: ...
    @property
    def size(self) -> int: ...


class Memory:
    def __init__(self, label: str = "first") -> None:
        self.label, self.open = label, 0

    async def get(self, key: str) -> str:
        return f"{self.label}:{key}"

    @asynccontextmanager
    async def session(self, *, name: str) -> AsyncIterator[str]:
        self.open += 1
        try:
            yield f"{self.label}:{name}"
        finally:
            self.open -= 1

    def keys(self) -> list[str]:
        return [self.label]

    @property
    def size(self) -> int:
        return 1


def linked(*, wait_s: float = 5.0) -> tuple[Link, Any]:
    link = Link("memory", Store, wait_s=wait_s)
    return link, Handle(link)


async def test_everything_is_forwarded_while_the_provider_runs() -> None:
    link, store = linked()
    link.connect(Memory())
    assert await store.get("a") == "first:a"
    async with store.session(name="s") as session:
        assert session == "first:s"
    assert (store.keys(), store.size) == (["first"], 1)
    assert repr(store) == "<handle to Store of 'memory', up>"


async def test_a_coroutine_waits_for_a_provider_that_comes_back_as_another_object() -> None:
    link, store = linked()
    link.connect(Memory())
    link.disconnect()
    waiting = asyncio.create_task(store.get("a"))
    await asyncio.sleep(0)
    assert not waiting.done()
    link.connect(Memory("second"))
    assert await waiting == "second:a"


async def test_a_context_manager_waits_too_and_closes_on_error() -> None:
    link, store = linked()
    memory = Memory()
    entered = asyncio.Event()

    async def use() -> None:
        async with store.session(name="s"):
            entered.set()
            assert memory.open == 1
            raise LookupError("inside")

    waiting = asyncio.create_task(use())
    await asyncio.sleep(0)
    assert not entered.is_set()
    link.connect(memory)
    with pytest.raises(LookupError, match="inside"):
        await waiting
    assert memory.open == 0


async def test_after_the_deadline_calls_are_unavailable() -> None:
    _, store = linked(wait_s=0.01)
    with pytest.raises(Unavailable, match="memory"):
        await store.get("a")
    with pytest.raises(Unavailable):
        async with store.session(name="s"):
            pass


async def test_what_cannot_wait_is_unavailable_at_once() -> None:
    _, store = linked()
    with pytest.raises(Unavailable):
        store.keys()
    with pytest.raises(Unavailable):
        _ = store.size
    with pytest.raises(AttributeError, match="Store has no attribute 'nonsense'"):
        _ = store.nonsense


async def test_a_waiter_is_not_fooled_by_a_provider_that_comes_and_goes() -> None:
    link, store = linked(wait_s=0.05)
    waiting = asyncio.create_task(store.get("a"))
    await asyncio.sleep(0)
    link.connect(Memory())
    link.disconnect()
    with pytest.raises(Unavailable):
        await waiting
