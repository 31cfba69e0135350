"""What a component gets for `Needs[T]`: an object that always forwards to whoever provides T now.

A consumer keeps its handle for life, so a provider can be restarted alone. While the provider is down, coroutine
methods and asynchronous context managers wait for it, at most `wait_s`, and then raise `Unavailable`; everything else
raises `Unavailable` at once. While the provider is up a handle holds its bound methods, so a call through it costs what
a call of the provider costs.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from magmobo.contracts.errors import Unavailable

WAIT_S = 5.0


class Link:
    """The connection between one provider and all handles to one of its Protocols. `target` is None while down.

    It belongs to the Protocol, not to the provider: `vacate` when the provider leaves the node, `adopt` when another
    takes over; the handles stay the same.
    """

    def __init__(self, component: str, protocol: type, *, wait_s: float = WAIT_S) -> None:
        self.component, self.protocol, self.wait_s = component, protocol, wait_s
        self.target: Any = None
        self.is_vacant = self.is_given_up = False
        self._up = asyncio.Event()
        self._handles: list[Handle] = []
        self._methods = tuple(
            name
            for kind in protocol.__mro__
            for name, declared in vars(kind).items()
            if inspect.isfunction(declared) and not name.startswith("_")
        )

    def attach(self, handle: Handle) -> None:
        """Keep `handle` pointed at the provider from now on."""
        self._handles.append(handle)
        if self.target is not None:
            self._point(handle)

    def detach(self, handle: Handle) -> None:
        """Forget a handle whose consumer leaves the node."""
        self._handles.remove(handle)
        self._unpoint(handle)

    @property
    def is_used(self) -> bool:
        """Whether any handle depends on this link."""
        return bool(self._handles)

    def _point(self, handle: Handle) -> None:
        known = vars(handle)
        known.update({name: getattr(self.target, name) for name in self._methods if hasattr(self.target, name)})

    def _unpoint(self, handle: Handle) -> None:
        for name in self._methods:
            vars(handle).pop(name, None)

    def connect(self, target: object) -> None:
        """From now on handles forward to `target`; who waited goes on."""
        self.target, self.is_given_up = target, False
        for handle in self._handles:
            self._point(handle)
        self._up.set()

    def disconnect(self) -> None:
        """The provider is down until the next `connect`."""
        self.target, self.is_given_up = None, False
        for handle in self._handles:
            self._unpoint(handle)
        self._up.clear()

    def give_up(self) -> None:
        """Like `disconnect`, but nobody brings the provider back by itself: who waits, and who calls from now on, hears
        so at once, instead of piling up behind it.
        """
        self.disconnect()
        self.is_given_up = True
        self._up.set()

    def vacate(self) -> None:
        """Nobody provides the Protocol any more: who waits, and who calls from now on, hears so at once."""
        self.disconnect()
        self.is_vacant = True
        self._up.set()

    def adopt(self, component: str) -> None:
        """`component` provides the Protocol from now on; it is down until `connect`."""
        self.component, self.is_vacant = component, False
        self._up.clear()

    async def wait(self) -> Any:
        """The provider, as soon as it is up. Raises: Unavailable after `wait_s`, or at once when there is none."""
        try:
            async with asyncio.timeout(self.wait_s):
                while self.target is None and not (self.is_vacant or self.is_given_up):
                    await self._up.wait()  # it may go down again before the waiter runs
        except TimeoutError as error:
            raise self._unavailable() from error
        if self.target is None:
            raise self._unavailable()
        return self.target

    def _unavailable(self) -> Unavailable:
        nobody = f'{self.protocol.__name__} (component "{self.component}" was taken off the node)'
        return Unavailable(nobody if self.is_vacant else f'component "{self.component}"')

    def stand_in(self, name: str) -> Any:
        """What `handle.name` is while the provider is down. Raises: Unavailable, AttributeError."""
        declared = inspect.getattr_static(self.protocol, name, None)
        if declared is None:
            raise AttributeError(f"{self.protocol.__name__} has no attribute {name!r}")
        if inspect.iscoroutinefunction(declared):
            return self._later(name)
        if _opens_context(declared):
            return lambda *args, **kwargs: _LateContext(self, name, args, kwargs)
        raise self._unavailable()

    def _later(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await getattr(await self.wait(), name)(*args, **kwargs)

        return call


class Handle:
    """Stands for whoever provides a Protocol."""

    def __init__(self, link: Link) -> None:
        self._link = link
        link.attach(self)

    # Asked for what is not a method of the Protocol (properties), and for everything while the provider is down.
    def __getattr__(self, name: str) -> Any:
        target = self._link.target
        return getattr(target, name) if target is not None else self._link.stand_in(name)

    def __repr__(self) -> str:
        state = "down" if self._link.target is None else "up"
        return f"<handle to {self._link.protocol.__name__} of {self._link.component!r}, {state}>"


class _LateContext:
    """An asynchronous context manager whose real one is made when the provider is up."""

    def __init__(self, link: Link, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._link, self._name, self._args, self._kwargs = link, name, args, kwargs

    async def __aenter__(self) -> Any:
        target = await self._link.wait()
        self._context = getattr(target, self._name)(*self._args, **self._kwargs)
        return await self._context.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        outcome: bool | None = await self._context.__aexit__(kind, error, trace)
        return outcome


def _opens_context(declared: Any) -> bool:
    """Read from the annotation as it is written: evaluating it would import whatever it names."""
    if not inspect.isfunction(declared):
        return False
    returned = declared.__annotations__.get("return", "")
    written = returned if isinstance(returned, str) else getattr(returned, "__name__", repr(returned))
    return written.partition("[")[0].rpartition(".")[2] == AbstractAsyncContextManager.__name__
