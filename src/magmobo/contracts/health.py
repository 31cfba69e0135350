"""How a component says how it is."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class HealthStatus(StrEnum):
    """`degraded` still serves, `unhealthy` does not."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class HealthCheck(Struct, frozen=True):
    """One fact a component checked about itself. `detail` is for people and holds no secret.

    `outside`: the cause lies outside of the node (a database of the user's that is down), so a restart cannot help and
    none is tried.
    """

    name: str
    status: HealthStatus
    detail: str = ""
    outside: bool = False


class HealthReport(Struct, frozen=True):
    """Answer of `Component.health`; `status` is the worst of the checks."""

    status: HealthStatus
    checks: tuple[HealthCheck, ...] = ()

    @classmethod
    def of(cls, *checks: HealthCheck) -> HealthReport:
        """A report whose status is the worst of `checks`, healthy when there are none."""
        order = list(HealthStatus)
        worst = max((check.status for check in checks), key=order.index, default=HealthStatus.HEALTHY)
        return cls(worst, checks)
