"""Section [demo]: which demo, and how fast it plays."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import LIVE, NEEDS_COMPONENT_RESTART

DemoName = Literal["flights", "tasks"]


class DemoConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [demo], set by `mag up --demo NAME --speed N`."""

    name: Annotated[DemoName, Meta(description="which demo to load"), NEEDS_COMPONENT_RESTART] = "flights"
    speed: Annotated[
        float, Meta(ge=0, le=1_000_000, description="simulated seconds per second of the replay; 0 stops it"), LIVE
    ] = 600.0
    jwt_secret: Annotated[
        Secret | None,
        Meta(description="key that signs the tokens of the tasks demo; generated"),
        NEEDS_COMPONENT_RESTART,
    ] = None
    """Key that signs the ready-made token of the tasks demo; the same one MagGate checks with. Generated."""
