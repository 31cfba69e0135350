"""The node as its operators see it: facts of slots, supervision and health put into the shapes of the contracts.

Boundary: reads, never changes; nothing here raises for a component that misbehaves.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from magmobo.contracts.component import Announcement
from magmobo.contracts.health import HealthReport, HealthStatus
from magmobo.kernel.errors import describe, located
from magmobo.kernel.health import worst_detail
from magmobo.kernel.lifecycle import State
from magmobo.kernel.registry import Registry, class_path
from magmobo.kernel.slot import Slot

if TYPE_CHECKING:
    from magmobo.contracts.operations import ComponentDetail
    from magmobo.contracts.planes import ComponentStatus


def utc(time_s: float) -> str:
    """Wall time as RFC 3339."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")


def is_down(slot: Slot) -> bool:
    """Whether a node that is up is degraded because of it: it should run and does not, or says that it does not serve.

    One that never ran is just joining, and nobody can miss it yet.
    """
    is_unhealthy = slot.health is not None and slot.health.status is HealthStatus.UNHEALTHY
    return (
        slot.incarnation > 0 and slot.state is not State.DISABLED and (slot.state is not State.RUNNING or is_unhealthy)
    )


def announcement_of(slot: Slot) -> Announcement:
    """What a running component wants its user to read."""
    try:
        return slot.component.announce()
    except Exception as error:
        slot.log.warning("announce failed", error=describe(error))
        return Announcement()


def component_status(slot: Slot, idle_reason: str = "", caused_by: str = "") -> ComponentStatus:
    """One line of `mag component:list`."""
    from magmobo.contracts.planes import ComponentStatus  # asked for by operators only

    health = slot.health if slot.state is State.RUNNING else None
    return ComponentStatus(
        name=slot.name,
        state=slot.state,
        health=str(health.status) if health else "unknown",
        restarts=slot.restarts,
        since=utc(slot.lifecycle.since_s),
        detail=_detail(slot, health, idle_reason, caused_by),
        essential=slot.essential,
    )


def _detail(slot: Slot, health: HealthReport | None, idle_reason: str, caused_by: str) -> str:
    if slot.state is State.DISABLED:
        return idle_reason
    if slot.error is not None:
        return located(slot.error)
    said = worst_detail(health) if health else ""
    return f"because of {caused_by}: {said}" if caused_by and said else said


def component_detail(
    slot: Slot, status: ComponentStatus, registry: Registry, *, source: str, budget_left: int, caused_by: str
) -> ComponentDetail:
    """Everything about one component."""
    from magmobo.contracts.operations import ComponentDetail, HealthNote  # asked for by operators only

    declaration = registry.declarations.get(slot.name) or registry.idle[slot.name]
    is_member = slot.name in registry.declarations
    kind = declaration.component_type
    held = slot.footprint
    return ComponentDetail(
        status=status,
        version=kind.version,
        source=source or class_path(kind),
        provides=[protocol.__name__ for protocol in kind.provides],
        needs=[one.protocol.__name__ for one in declaration.dependencies if one.hard],
        wants=[one.protocol.__name__ for one in declaration.dependencies if not one.hard],
        after=kind.after,
        needed_by=registry.needed_by(slot.name) if is_member else (),
        capabilities=kind.capabilities,
        checks=[HealthNote(one.name, one.status, one.detail) for one in slot.health.checks] if slot.health else [],
        caused_by=caused_by,
        restarts=list(slot.notes),
        budget_left=budget_left,
        tasks=held.tasks,
        subscriptions=held.subscriptions,
    )
