"""The six stages of a boot, as data, and the walk through them.

Invariant: either every stage ended, or the node is as it was before: `undo` ran and `BootFailed` (or the caller's
cancellation) was raised.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.component import Component
from magmobo.contracts.events import SystemBootFailed, SystemBootStage
from magmobo.kernel.config.loader import Config
from magmobo.kernel.errors import BadDeclaration, BootFailed, SelfTestFailed, describe
from magmobo.kernel.slot import PhaseFailed

PROBE_BYTES = 65_536
ASYNC_HOOKS = ("boot", "start", "stop", "shutdown", "recover", "health")


class Stage(Struct, frozen=True):
    """One step of the boot; `run` raises what keeps the node from starting."""

    name: str
    run: Callable[[], Awaitable[None]]


class BootSequence:
    """Walks through the stages once. `timeline_s` keeps the seconds each one took."""

    def __init__(self, stages: Sequence[Stage], undo: Callable[[], Awaitable[None]], bus: Bus, clock: Clock) -> None:
        self._stages, self._undo, self._bus, self._clock = stages, undo, bus, clock
        self.timeline_s: dict[str, float] = {}

    async def run(self) -> None:
        """Raises: BootFailed after everything was taken back; CancelledError likewise."""
        for stage in self._stages:
            started_at, begun_s = self._clock.time_s(), self._clock.monotonic_s()
            try:
                await stage.run()
            except asyncio.CancelledError:
                await self._take_back(BootFailed(stage.name, "", "", InterruptedError("the boot was interrupted")))
                raise
            except PhaseFailed as failure:
                error = BootFailed(stage.name, failure.component, failure.phase, failure.cause)
                await self._take_back(error)
                raise error from failure.cause
            except Exception as cause:
                error = BootFailed(stage.name, "", "", cause)
                await self._take_back(error)
                raise error from cause
            duration_s = self._clock.monotonic_s() - begun_s
            self.timeline_s[stage.name] = duration_s
            self._bus.emit(SystemBootStage(stage=stage.name, started_at=started_at, duration_s=duration_s))

    async def _take_back(self, error: BootFailed) -> None:
        await self._undo()
        self._bus.emit(SystemBootFailed(stage=error.stage, component=error.component, error=describe(error.cause)))


def check_data_dir(data_dir: Path) -> None:
    """The node must be able to write, and to make it durable, in its data folder. Raises: SelfTestFailed."""
    if not data_dir.is_dir():
        raise SelfTestFailed("data folder", f"{data_dir} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=data_dir, prefix=".probe-") as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise SelfTestFailed("data folder", f"{data_dir} cannot be written ({error.strerror})") from error


def check_components(component_types: Iterable[type[Component]], config: Config) -> None:
    """Hooks are coroutine functions and sections are there, of the right type. Raises: BadDeclaration."""
    sections = set(config.sections)
    for component_type in component_types:
        for hook in ASYNC_HOOKS:
            if not asyncio.iscoroutinefunction(getattr(component_type, hook)):
                raise BadDeclaration(component_type.name, f"its hook `{hook}` is not `async def`")
        wanted = component_type.config_type
        if wanted is None:
            continue
        if component_type.name not in sections:
            raise BadDeclaration(component_type.name, f"its section [{component_type.name}] was not loaded")
        if not isinstance(config.section(component_type.name), wanted):
            raise BadDeclaration(component_type.name, f"its section is not a {wanted.__name__}")
