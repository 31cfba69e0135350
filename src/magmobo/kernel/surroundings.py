"""What all components of a node have in common, made before the first of them; a reset leaves it as it is.

Boundary: makes, opens nothing; it knows no component.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from magmobo.contracts.clock import Clock
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.config.core import ObservabilityConfig
from magmobo.kernel.config.loader import Config
from magmobo.kernel.handler_watch import HandlerWatch
from magmobo.kernel.known import KnownSecrets
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.services import Services
from magmobo.kernel.timeline import Timeline

if TYPE_CHECKING:
    from magmobo.kernel.commands.bus import CommandBus
    from magmobo.kernel.vault.driver import VaultDriver


class Surroundings(Struct, frozen=True):
    """One of each, for one node."""

    instance_id: str
    environment: str
    version: str
    data_dir: Path
    bus: EventBus
    clock: Clock
    services: Services
    timeline: Timeline


def make_surroundings(
    config: Config,
    *,
    instance_id: str,
    environment: str,
    version: str,
    data_dir: Path,
    known: KnownSecrets,
    clock: Clock,
    vault: VaultDriver | None,
    log: QuietLog,
    furnish: Callable[[CommandBus], None],
) -> Surroundings:
    """Arguments as of the kernel; `furnish` as of `Services`. `known` learns the secrets of `config`."""
    known.learn(config)
    observability: ObservabilityConfig = config.section("observability")
    handlers = HandlerWatch(lambda: services.metrics, log)
    bus = EventBus(
        origin=instance_id,
        time_s=clock.time_s,
        monotonic_s=clock.monotonic_s,
        history_limit=observability.events_kept,
        on_failure=handlers.failed,
        on_timing=handlers.took,
    )
    services = Services(
        data_dir=data_dir,
        instance_id=instance_id,
        security=config.section("security"),
        cache=config.section("cache"),
        known=known,
        bus=bus,
        clock=clock,
        log=log,
        furnish=furnish,
        vault=vault,
    )
    timeline = Timeline(clock.monotonic_s)
    return Surroundings(instance_id, environment, version, data_dir, bus, clock, services, timeline)
