"""What the capability gate refuses."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class CapabilityDenied(MagError):
    """The actor's role, or the declaration of the component, does not hold the capability that the command asks for."""

    code = "MAG-SEC-001"
    exit_code = 6
    http_status = 403
    remedy = (
        'Ask as somebody whose role holds it. In an emergency: `mag --breakglass "why" …`, which is always recorded as '
        "critical."
    )

    def __init__(self, actor: str, capability: str, context: str, least_role: str) -> None:
        super().__init__(actor, capability, context, least_role)
        self.actor, self.capability, self.context, self.least_role = actor, capability, context, least_role

    def __str__(self) -> str:
        needed = f'the role "{self.least_role}"' if self.least_role else "a capability that nobody can hold"
        return f"{self.actor} may not {self.context}, because {self.capability} asks for {needed}"

    def next_step(self) -> str:
        if self.actor.startswith("component:"):
            return f'Declare it on the class of the component: capabilities = ("{self.capability}", …).'
        return self.remedy


class JustificationRefused(MagError):
    """A justification for break-glass mode is too long or is not plain text, so it could not be put on record."""

    code = "MAG-SEC-002"
    exit_code = 2
    http_status = 400
    remedy = "Say why in one line of plain text of at most 500 characters."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the justification {self.reason}"
