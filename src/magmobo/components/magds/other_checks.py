"""What extensions say about storage's health, as checks beside our own.

Invariant: words of others cannot make storage more than degraded, so no extension takes a node out of service by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magmobo.contracts.health import HealthCheck, HealthStatus

MAX_CHECKS, MAX_NAME, MAX_DETAIL = 10, 60, 300
"""Checks of one extension, characters of their names and details."""


def checks_of(answers: Mapping[str, Mapping[str, Any]]) -> list[HealthCheck]:
    """One check for each `{check: {status, detail}}` of each extension; what is not of that shape is left out."""
    checks: list[HealthCheck] = []
    for extension, answer in sorted(answers.items()):
        for name, facts in list(answer.items())[:MAX_CHECKS]:
            if isinstance(name, str) and isinstance(facts, Mapping):
                checks.append(_check(f"{extension}: {_line(name, MAX_NAME)}", facts))
    return checks


def _check(name: str, facts: Mapping[str, Any]) -> HealthCheck:
    said, detail = facts.get("status"), facts.get("detail", "")
    status = HealthStatus.HEALTHY if said == HealthStatus.HEALTHY else HealthStatus.DEGRADED
    words = _line(detail, MAX_DETAIL) if isinstance(detail, str) else ""
    if said == HealthStatus.UNHEALTHY:
        words = f"unhealthy: {words}" if words else "unhealthy"
    return HealthCheck(name, status, words, outside=True)


def _line(text: str, limit: int) -> str:
    """One line of printable text."""
    return "".join(one if one.isprintable() else " " for one in text[:limit])
