"""The two phases of a reload in one component that goes on to serve: get ready, then take the settings, or let go.

Boundary: the caller holds the component's turn. Invariant: of a component that `prepare` returned for, exactly one of
`commit` and `abort` is called by the caller; of one that it raised for, none is needed any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any

from magmobo.contracts.component import Component
from magmobo.kernel.errors import PhaseTimeout, describe
from magmobo.kernel.lifecycle import State
from magmobo.kernel.slot import PhaseFailed, Slot
from magmobo.kernel.supervision.errors import HookEscaped, NotNow

_PREPARE = "prepare_reload"


def takes_live(component_type: type[Component]) -> bool:
    """Whether its author wrote what a change while it serves needs."""
    return component_type.commit_reload is not Component.commit_reload


async def prepare(slot: Slot, section: Any, changed: Set[str], timeout_s: float) -> None:
    """Ask the running component to get ready for `section`. Raises: PhaseFailed, also when it fails meanwhile."""
    try:
        await slot.hooks.run(_PREPARE, lambda: slot.component.prepare_reload(section, changed), timeout_s)
    except asyncio.CancelledError:
        await abort(slot, timeout_s)
        raise
    except Exception as error:
        if isinstance(error, PhaseTimeout) or error is slot.error:  # the hook was ended, it did not raise
            await abort(slot, timeout_s)
        raise PhaseFailed(slot.name, _PREPARE, error) from error
    if slot.state is not State.RUNNING:
        await abort(slot, timeout_s)
        raise PhaseFailed(slot.name, _PREPARE, slot.error or NotNow(slot.name, "it does not run any more"))


def commit(slot: Slot, section: Any) -> BaseException | None:
    """Let what was prepared count. What the component raises is returned: it is to be made anew then."""
    slot.tenant.section = section
    try:
        slot.component.commit_reload()
    except Exception as error:
        slot.tenant.is_stale = True
        return error
    except BaseException as error:
        slot.tenant.is_stale = True
        return HookEscaped(f"raised {type(error).__name__}({error})")
    return None


async def abort(slot: Slot, timeout_s: float) -> None:
    """Let the component forget what it prepared. A failure is logged."""
    try:
        await slot.hooks.run("abort_reload", slot.component.abort_reload, timeout_s)
    except Exception as error:
        slot.log.exception("abort_reload failed", error=describe(error))
