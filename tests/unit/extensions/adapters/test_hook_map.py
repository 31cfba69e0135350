"""Every hook point is reached by exactly one adapter, and every adapter stands for a component that offers points."""

from __future__ import annotations

from magmobo.contracts.hooks import HOOK_POINTS
from magmobo.extensions.adapters.catalogue import SURFACES, hook_map
from magmobo.extensions.adapters.surface import HookPlace


def test_every_hook_point_has_its_adapter() -> None:
    places = hook_map()
    assert [place.point for place in places] == sorted(HOOK_POINTS)
    assert all(place.component == HOOK_POINTS[place.point].component for place in places)
    assert HookPlace("api.before_request", "maggate", "maggate") in places


def test_adapters_serve_methods_of_their_own() -> None:
    methods = [method for surface in SURFACES for method in surface.methods]
    assert len(set(methods)) == len(methods)
    assert all(surface.hooks and surface.protocols for surface in SURFACES)
    assert len({surface.adapter for surface in SURFACES}) == len(SURFACES)
