"""All adapters, and the map from hook points to the components behind them."""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.extensions.adapters.magds import SURFACE as MAGDS
from magmobo.extensions.adapters.maggate import SURFACE as MAGGATE
from magmobo.extensions.adapters.magws import SURFACE as MAGWS
from magmobo.extensions.adapters.surface import HookPlace, Surface

SURFACES: tuple[Surface, ...] = (MAGDS, MAGGATE, MAGWS)


def hook_map() -> Sequence[HookPlace]:
    """Every hook point, by name, with the adapter that leads to it and the component that offers it."""
    places = [HookPlace(spec.name, one.adapter, one.component) for one in SURFACES for spec in one.hooks]
    return sorted(places, key=lambda place: place.point)
