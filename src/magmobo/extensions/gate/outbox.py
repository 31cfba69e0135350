"""Records of the audit log that nobody waits for: written one after another, a bounded number waiting.

What cannot be kept, or written, is counted, and the next record that is written says how many are missing. Privileged
actions never go this way: those are recorded before they happen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from magmobo.contracts.audit import Audit
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import AuditUnavailable

MAX_WAITING = 1000


def actor_of(extension_id: str) -> Actor:
    """An extension as an actor: it holds no role among operators."""
    return Actor(name=f"extension:{extension_id}", role=Role.VIEWER, via="component")


PLANE = Actor(name="component:extensions", role=Role.VIEWER, via="component")


class AuditOutbox:
    """Writes in a task of its own, which runs only while something waits."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._waiting: deque[tuple[str, Actor, Mapping[str, Any]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._missing = 0

    def put(self, action: str, actor: Actor, payload: Mapping[str, Any]) -> None:
        """Record this soon."""
        if len(self._waiting) >= MAX_WAITING:
            self._missing += 1
            return
        self._waiting.append((action, actor, payload))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write(), name="extensions.audit")

    async def _write(self) -> None:
        try:
            while self._waiting:
                action, actor, payload = self._waiting.popleft()
                missing, self._missing = self._missing, 0
                said = {**payload, "missing": missing} if missing else payload
                try:
                    await self._audit.record(action, actor=actor, payload=said)
                except AuditUnavailable:
                    self._missing += missing + 1
        finally:
            self._task = None

    async def drained(self) -> None:
        """Return once nothing waits any more."""
        while self._task is not None:
            await asyncio.wait({self._task})
