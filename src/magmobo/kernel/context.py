"""What one component sees of the node. Everything made through it belongs to that component and ends with it."""

from __future__ import annotations

from pathlib import Path

import structlog
from msgspec import Struct

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.tasks import TaskSet


class Surroundings(Struct, frozen=True):
    """What all components of a node have in common."""

    instance_id: str
    environment: str
    version: str
    data_dir: Path
    bus: EventBus
    clock: Clock


class ComponentContext:
    """Implements `contracts.component.Context`."""

    def __init__(self, component: str, around: Surroundings, bus: Bus, tasks: TaskSet) -> None:
        self.component = component
        self.instance_id, self.environment, self.data_dir = around.instance_id, around.environment, around.data_dir
        self.bus, self.clock = bus, around.clock
        self.log: structlog.stdlib.BoundLogger = structlog.get_logger().bind(component=component)
        self.spawn = tasks.spawn
