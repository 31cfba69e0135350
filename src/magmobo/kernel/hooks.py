"""The hook points of one node: one object for each entry of the catalogue, made when the first asks for it.

They outlive components, so that neither a restarted host nor a restarted mediation plane holds a point that nobody else
knows. Boundary: what is put into a point, and what runs there, is for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magmobo.contracts.hooks import HOOK_POINTS, HookPoint


class HookBoard:
    """Implements `contracts.hooks.Hooks`."""

    def __init__(self) -> None:
        self._points: dict[str, HookPoint[Any]] = {}

    def point(self, name: str) -> HookPoint[Any]:
        point = self._points.get(name)
        if point is None:
            point = self._points[name] = HookPoint(HOOK_POINTS[name])
        return point

    def points(self) -> Sequence[HookPoint[Any]]:
        return [self.point(name) for name in HOOK_POINTS]
