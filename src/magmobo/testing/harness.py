"""A whole kernel for a test, and the checks that every component must pass.

Uses the real kernel with real components in a temporary data folder; nothing is replaced by a mock.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from magmobo.contracts.clock import Clock
from magmobo.contracts.component import Component
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.loader import Config, load_config
from magmobo.kernel.kernel import Kernel

SETTLE_S = 5.0


def make_kernel(
    *components: type[Component],
    data_dir: Path,
    config: Mapping[str, Mapping[str, Any]] = {},
    provided: Mapping[type, object] = {},
    clock: Clock | None = None,
) -> Kernel:
    """A kernel that is not booted. `config`: section -> key -> value, as in mag.toml. Raises: ConfigError."""
    return Kernel(
        components=components,
        config=make_config(*components, values=config),
        data_dir=data_dir,
        environment="test",
        instance_id="test-node",
        version="0",
        clock=clock,
        provided=provided,
    )


def make_config(*components: type[Component], values: Mapping[str, Mapping[str, Any]] = {}) -> Config:
    """The core sections and those of `components`, from `values` and defaults. Raises: ConfigError."""
    sections: dict[str, type[Struct]] = dict(CORE_SECTIONS)
    sections |= {component.name: component.config_type for component in components if component.config_type}
    return load_config(sections, [Layer("test", "test", {name: dict(section) for name, section in values.items()})])


@asynccontextmanager
async def running_kernel(
    *components: type[Component],
    config: Mapping[str, Mapping[str, Any]] = {},
    provided: Mapping[type, object] = {},
    clock: Clock | None = None,
    data_dir: Path | None = None,
) -> AsyncIterator[Kernel]:
    """A booted kernel with a data folder of its own; it is shut down when the block ends, whatever happens in it.

    Raises: ConfigError, BootFailed.
    """
    with tempfile.TemporaryDirectory(prefix="mag-test-") as scratch:
        kernel = make_kernel(
            *components, data_dir=data_dir or Path(scratch), config=config, provided=provided, clock=clock
        )
        await kernel.boot()
        try:
            yield kernel
        finally:
            await kernel.shutdown()


class Footprint(Struct, frozen=True):
    """What a component could leave behind in this process."""

    tasks: frozenset[asyncio.Task[Any]]
    descriptors: frozenset[str]


def footprint() -> Footprint:
    """Tasks of this loop, but the calling one, and open file descriptors with what they point to."""
    tasks = frozenset(task for task in asyncio.all_tasks() if task is not asyncio.current_task())
    folder = Path("/proc/self/fd" if Path("/proc/self/fd").is_dir() else "/dev/fd")
    descriptors = set()
    for entry in folder.iterdir():
        try:
            descriptors.add(f"{entry.name} -> {entry.readlink()}")
        except OSError:
            continue  # the descriptor of this very listing
    return Footprint(tasks, frozenset(descriptors))


async def check_component(
    make: type[Component],
    *,
    beside: tuple[type[Component], ...] = (),
    config: Mapping[str, Mapping[str, Any]] = {},
    provided: Mapping[type, object] = {},
) -> None:
    """Boot, start, stop, start again, stop and shut down; nothing of the component may be left, nor grow by restarting.

    Args:
        make: the component class under test.
        beside: components it needs.
    Raises: AssertionError naming what is left; BootFailed.
    """
    before = footprint()
    async with running_kernel(*beside, make, config=config, provided=provided) as kernel:
        status = {one.name: one for one in kernel.status().components}[make.name]
        _expect(status.state == "running", f"is {status.state} after the boot: {status.detail}")
        held = _held(kernel, make)
        for _ in range(2):
            await kernel.stop_component(make.name)
            _expect(_state(kernel, make) == "stopped", f"is {_state(kernel, make)} after stop")
            await kernel.start_component(make.name)
            _expect(_state(kernel, make) == "running", f"is {_state(kernel, make)} after a second start")
        for kind, count in _held(kernel, make).items():
            _expect(count <= held[kind], f"has {count - held[kind]} more {kind} after restarts")
    _expect(kernel.bus.subscription_count(make.name) == 0, "left subscriptions behind")
    _expect(_state(kernel, make) == "stopped", f"is {_state(kernel, make)} after the shutdown")
    if ending := footprint().tasks - before.tasks:
        await asyncio.wait(ending, timeout=SETTLE_S)  # what was cancelled gets time to end
    after = footprint()
    left_tasks = sorted(task.get_name() for task in after.tasks - before.tasks)
    _expect(not left_tasks, f"left tasks behind: {left_tasks}")
    left = after.descriptors - before.descriptors
    _expect(not left, f"left open files behind: {sorted(left)}")


def _held(kernel: Kernel, component: type[Component]) -> dict[str, int]:
    """What the kernel keeps for it and does not show as a task or a file."""
    name, services = component.name, kernel.services
    return {
        "subscriptions": kernel.bus.subscription_count(name),
        "watches of the state": services.states.watch_count(name),
        "command handlers": services.commands.handler_count(name),
    }


def _state(kernel: Kernel, component: type[Component]) -> str:
    return next(one.state for one in kernel.status().components if one.name == component.name)


def _expect(condition: bool, complaint: str) -> None:
    if not condition:
        raise AssertionError(f"the component {complaint}")
