"""How a changed setting takes effect in a running node. A section says it beside each of its keys:

    level: Annotated[int, Meta(ge=0), LIVE] = 1

and who may set it at run time: `ADMINS_ONLY`. Boundary: marks only; the kernel plans and decides by them, and the
published schema shows them as `x-reload` and `x-capability`. A key of a component without a mark asks for a restart of
that component, a core key without one for a restart of the node.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Meta

MARK = "reload"
"""The name of the mark inside of `Meta.extra`."""


class Effect(StrEnum):
    """What it takes until a new value counts; each is more than the one before it."""

    LIVE = "live"
    COMPONENT = "component"
    NODE = "node"


def _mark(effect: Effect) -> Meta:
    return Meta(extra={MARK: effect}, extra_json_schema={f"x-{MARK}": effect.value})


LIVE = _mark(Effect.LIVE)
"""The component takes it while it serves (`prepare_reload`, `commit_reload`)."""

NEEDS_COMPONENT_RESTART = _mark(Effect.COMPONENT)
"""The component is made anew with it; the others go on."""

NEEDS_NODE_RESTART = _mark(Effect.NODE)
"""The running value stays until the node starts again."""


CAPABILITY_MARK = "capability"
"""The name of that mark inside of `Meta.extra`."""

AUTHORITY = "kernel.config.authority"
"""What it takes to change such a key at run time, besides what the command asks for."""

ADMINS_ONLY = Meta(extra={CAPABILITY_MARK: AUTHORITY}, extra_json_schema={f"x-{CAPABILITY_MARK}": AUTHORITY})
"""Whoever sets it could run code, let others in, see more than his role shows, or cover his tracks. Marks everything
inside of what it stands at. A `Secret` needs no mark: its references read files, variables and the vault.
"""
