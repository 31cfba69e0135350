"""What takes part at one hook point now: bindings in their order, and how each phase runs through them.

Compiled when somebody takes part or leaves, never changed after: an operation that began with a chain ends with it.
What an extension is told is encoded once, and again only after a change. Invariant: never more than `MAX_DEPTH` hooks
inside of each other, on one path, across all extensions. Source: CONTRACTS section 6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from magmobo.contracts.errors import MagError
from magmobo.contracts.hooks import HookContext, HookSpec
from magmobo.extensions.hooks.answers import Answers, BadAnswer
from magmobo.extensions.hooks.around import Wrapped
from magmobo.extensions.hooks.binding import Binding
from magmobo.extensions.hooks.errors import HookTooDeep
from magmobo.extensions.hooks.telling import Telling
from magmobo.extensions.workers.asked import CURRENT, current_chain

T = TypeVar("T")
C = TypeVar("C", bound=HookContext)
MAX_DEPTH = 4
_encode = msgspec.msgpack.Encoder().encode


class Chain(Generic[C]):
    """Implements `contracts.hooks.HookChain`. `bindings` and `tellings` belong together and are not empty."""

    __slots__ = ("_answers", "_at_once", "_bindings", "_first", "_point", "_tellings")

    def __init__(
        self, spec: HookSpec, answers: Answers, bindings: Sequence[Binding], tellings: Sequence[Telling]
    ) -> None:
        self._bindings, self._tellings = tuple(bindings), tuple(tellings)
        self._answers, self._point = answers, spec.name
        self._at_once = spec.mode == "parallel" and len(bindings) > 1
        self._first = spec.mode == "first_match"

    async def before(self, context: C) -> C:
        chain = self._path()
        if self._at_once:
            return await self._all_before(context, chain)
        packed: Raw | None = None
        for binding in self._bindings:
            if not binding.takes_part(context):
                continue
            if packed is None:
                packed = Raw(_encode(context))
            answer = await binding.ask(packed, chain)
            if answer is None:
                continue
            changed = self._changed(binding, context, answer)
            if changed is not context:
                context, packed = changed, None
                if self._first:
                    break
        return context

    async def _all_before(self, context: C, chain: tuple[str, ...]) -> C:
        """All are asked at the same time; the first of the order that says no is the one that is named."""
        packed = Raw(_encode(context))
        loop = asyncio.get_running_loop()
        asked = [(one, loop.create_task(one.ask(packed, chain))) for one in self._bindings if one.takes_part(context)]
        try:
            for binding, task in asked:
                answer = await task
                if answer is not None:
                    context = self._changed(binding, context, answer)
        finally:
            for _, task in asked:
                if not task.done():
                    task.cancel()
                elif not task.cancelled():
                    task.exception()  # a second no is nobody's news
        return context

    def after(self, context: C) -> None:
        chain = current_chain()
        if len(chain) >= MAX_DEPTH:
            return
        packed, behalf = Raw(_encode(context)), CURRENT.get()
        for binding, telling in zip(self._bindings, self._tellings, strict=True):
            if binding.takes_part(context):
                telling.put(packed, chain, behalf)

    async def around(self, context: C, proceed: Callable[[], Awaitable[T]]) -> T:
        chain = self._path()
        taking_part = [binding for binding in self._bindings if binding.takes_part(context)]
        if not taking_part:
            return await proceed()
        return await Wrapped(proceed, taking_part, Raw(_encode(context)), chain).run()

    async def replace(self, context: C) -> Mapping[str, Any] | None:
        chain = self._path()
        packed = Raw(_encode(context))
        for binding in self._bindings:
            answer = await binding.ask(packed, chain) if binding.takes_part(context) else None
            if answer is not None and (said := self._said(binding, answer)) is not None:
                return said
        return None

    async def gather(self, context: C) -> Mapping[str, Mapping[str, Any]]:
        chain = current_chain()
        if len(chain) >= MAX_DEPTH:
            return {}
        packed = Raw(_encode(context))
        asking = [binding for binding in self._bindings if binding.takes_part(context)]
        said = await asyncio.gather(*(self._gathered(binding, packed, chain) for binding in asking))
        return {binding.extension_id: one for binding, one in zip(asking, said, strict=True) if one is not None}

    async def _gathered(self, binding: Binding, packed: Raw, chain: tuple[str, ...]) -> Mapping[str, Any] | None:
        try:
            answer = await binding.ask(packed, chain)
            return None if answer is None else self._said(binding, answer)
        except MagError:
            return None

    def _path(self) -> tuple[str, ...]:
        """The hooks that led here. Raises: HookTooDeep."""
        chain = current_chain()
        if len(chain) >= MAX_DEPTH:
            raise HookTooDeep(self._point, chain)
        return chain

    def _changed(self, binding: Binding, context: C, answer: Raw) -> C:
        try:
            return self._answers.apply(context, answer)
        except BadAnswer as bad:
            binding.misread(str(bad))
            return context

    def _said(self, binding: Binding, answer: Raw) -> Mapping[str, Any] | None:
        try:
            return self._answers.mapping(answer)
        except BadAnswer as bad:
            binding.misread(str(bad))
            return None
