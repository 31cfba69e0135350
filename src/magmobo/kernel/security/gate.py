"""The capability gate: one answer for every command of every actor.

Rules: a role holds a capability when it is at least the one in the catalogue; a component holds exactly what its class
declares, whatever its role; a capability that the catalogue does not know is held by nobody. A person who gives a
justification is let through in break-glass mode. Boundary: no I/O; who asks the gate writes the audit records.
Source: CONTRACTS section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from magmobo.contracts.capabilities import CAPABILITIES, Actor, Role
from magmobo.contracts.events import Event, SecurityBreakglass, SecurityCapabilityDenied
from magmobo.kernel.security.errors import CapabilityDenied, JustificationRefused

MAX_JUSTIFICATION_CHARS = 500
_RANK = {role: rank for rank, role in enumerate(Role)}
_PEOPLE = ("control", "console")


class Decisions(Struct, frozen=True):
    """Decisions of a gate since it was made."""

    allowed: int
    denied: int
    breakglass: int


class Gate:
    """Decides by actor, capability and context, tells the bus of every denial and every break-glass, and counts.

    `catalogue`: the least role for each capability.
    """

    def __init__(self, emit: Callable[[Event], None], *, catalogue: Mapping[str, Role] = CAPABILITIES) -> None:
        self._emit, self._catalogue = emit, catalogue
        self._allowed = self._denied = self._breakglass = 0

    def require(self, actor: Actor, capability: str, context: str) -> bool:
        """Return whether it took break-glass to let `actor` through.

        Args:
            context: what the capability is wanted for, the name of a command.
        Raises: CapabilityDenied; JustificationRefused for one that could not be put on record.
        """
        justification = self._justification(actor, capability, context)
        if justification and capability in self._catalogue:
            self._breakglass += 1
            self._emit(SecurityBreakglass(actor=actor.name, capability=capability, justification=justification))
            return True
        if not self._holds(actor, capability):
            raise self._deny(actor, capability, context)
        self._allowed += 1
        return False

    def decisions(self) -> Decisions:
        """How it decided so far."""
        return Decisions(self._allowed, self._denied, self._breakglass)

    def _holds(self, actor: Actor, capability: str) -> bool:
        least = self._catalogue.get(capability)
        if least is None:
            return False
        if actor.via == "component":
            return capability in actor.capabilities
        return _RANK.get(actor.role, -1) >= _RANK[least]

    def _justification(self, actor: Actor, capability: str, context: str) -> str:
        """Why a person breaks the glass; empty for whoever does not."""
        text = actor.justification.strip()
        if not text or actor.via not in _PEOPLE:
            return ""
        if len(text) > MAX_JUSTIFICATION_CHARS:
            problem = f"is longer than {MAX_JUSTIFICATION_CHARS} characters"
        elif not text.isprintable():  # line breaks, control characters, lone surrogates
            problem = "holds characters that cannot be printed"
        else:
            return text
        self._deny(actor, capability, context)
        raise JustificationRefused(problem)

    def _deny(self, actor: Actor, capability: str, context: str) -> CapabilityDenied:
        self._denied += 1
        self._emit(SecurityCapabilityDenied(capability=capability, actor=actor.name, context=context))
        return CapabilityDenied(actor.name, capability, context, self._catalogue.get(capability, ""))
