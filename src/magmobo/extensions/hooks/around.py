"""Runs an operation inside of around hooks, the first of the order outermost.

Invariant: the operation runs at most once; once it has begun, no extension changes how it ends: its result or its
error is the caller's, whatever the hooks do afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Raw

from magmobo.contracts.errors import HookDenied, HookUnavailable, MagError
from magmobo.extensions.hooks.binding import Binding
from magmobo.extensions.workers.errors import HandlerDenied

T = TypeVar("T")


class Wrapped(Generic[T]):
    """One operation on its way through the hooks."""

    def __init__(
        self, operation: Callable[[], Awaitable[T]], bindings: Sequence[Binding], packed: Raw, chain: tuple[str, ...]
    ) -> None:
        self._operation, self._bindings, self._packed, self._chain = operation, bindings, packed, chain
        self._results: list[T] = []
        self._error: Exception | None = None

    async def run(self) -> T:
        """Raises: HookDenied, HookUnavailable; as the operation."""
        await self._from(0)
        if self._error is not None:
            raise self._error
        return self._results[0]

    @property
    def _is_settled(self) -> bool:
        return self._error is not None or bool(self._results)

    async def _from(self, place: int) -> bool:
        """Go on with the binding at this place, or the operation behind the last; whether all went well."""
        if place == len(self._bindings):
            try:
                self._results.append(await self._operation())
            except Exception as error:
                self._error = error
        else:
            await self._through(self._bindings[place], place)
        return self._error is None

    async def _through(self, binding: Binding, place: int) -> None:
        try:
            await binding.around(self._packed, self._chain, lambda: self._from(place + 1))
        except HandlerDenied as denied:
            binding.answered()
            if not self._is_settled:
                self._error = HookDenied(binding.point, binding.extension_id, denied.reason, denied.retry_s)
        except MagError as error:
            try:
                binding.failed(error)
            except HookUnavailable as unavailable:
                if not self._is_settled:
                    self._error = unavailable
        if not self._is_settled:
            await self._from(place + 1)
