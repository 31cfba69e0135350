"""What an extension may do: from what its manifest asks for, through what was decided, to what counts now.

Boundary: manifests and decisions in, decisions and grants out; no I/O. Invariant: nothing is granted that the manifest
of that version does not ask for, and no scope is left open: every grant names each kind of scope, an empty one gives
nothing. Source: CONTRACTS section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from magmobo.contracts.extensions import EXTENSION_CAPABILITIES, PLANNED_CAPABILITIES, Risk
from magmobo.extensions.gate.hours import parse as parse_hours
from magmobo.extensions.installed import Grant
from magmobo.extensions.lifecycle.errors import GrantRefused
from magmobo.extensions.lifecycle.records import GRANTED, PENDING, REFUSED, REVOKED, Decision, Decisions
from magmobo.extensions.package.manifest import CapabilityRequest, Manifest
from magmobo.extensions.package.scopes import KINDS, SCOPE_KINDS, asked_for, covers, scope_problem
from magmobo.extensions.package.upgrades import capability_diff, rate_of

if TYPE_CHECKING:
    from magmobo.contracts.extensions import GrantCapability

N = TypeVar("N", int, float)
PLANE = "plane"
"""Who decides what is not asked about."""
_MAX_SCOPES = 200


def scope_of(request: CapabilityRequest) -> Mapping[str, Sequence[str]]:
    """All that a request asks for, every kind named."""
    return {kind: _asked(request, kind) for kind in KINDS}


def first_decisions(manifest: Manifest) -> Decisions:
    """Those of an extension that nobody has looked at: low risk is granted, the rest waits."""
    return {request.name: _fresh(request) for request in manifest.capabilities}


def carried_decisions(before: Manifest, decided: Decisions, after: Manifest) -> Decisions:
    """Those of the next version: what it asks for as before stays as decided, what is new or more is asked for anew."""
    more = capability_diff(before, after).more
    found = {}
    for request in after.capabilities:
        old = decided.get(request.name)
        if old is None or request.name in more or old.state == REFUSED:
            found[request.name] = _fresh(request) if old is None or old.state != REVOKED else _pending(request)
        else:
            found[request.name] = _narrowed_to(old, request)
    return found


def granted(request: CapabilityRequest, by: str) -> Decision:
    """All that a request asks for."""
    return Decision(
        capability=request.name, state=GRANTED, scope=scope_of(request), rate_per_minute=rate_of(request), by=by
    )


def granted_less(
    request: CapabilityRequest, wanted: GrantCapability, *, expires_at_s: float | None, by: str
) -> Decision:
    """What a request asks for, or less of it: kinds that the scope of `wanted` names are as it says.

    Raises: GrantRefused.
    """
    if problem := _problem(request, wanted.scope, wanted.rate_per_minute, wanted.hours):
        raise GrantRefused(wanted.id, request.name, problem)
    return Decision(
        capability=request.name,
        state=GRANTED,
        scope={**scope_of(request), **{kind: list(names) for kind, names in wanted.scope.items()}},
        rate_per_minute=wanted.rate_per_minute or rate_of(request),
        budget_per_day=wanted.budget_per_day,
        expires_at_s=expires_at_s,
        hours=wanted.hours,
        by=by,
    )


def with_waiting(decided: Decisions) -> Decisions:
    """The same, as if what waits for approval were granted."""
    return {name: replace(one, state=GRANTED) if one.state == PENDING else one for name, one in decided.items()}


def revoked(decision: Decision, by: str) -> Decision:
    """The same, taken back."""
    return replace(decision, state=REVOKED, by=by)


def missing(manifest: Manifest, decided: Decisions, now_s: float) -> Sequence[str]:
    """Capabilities that it must have and has not, by name."""
    return [
        request.name
        for request in manifest.capabilities
        if not request.optional and not _counts(decided.get(request.name), now_s)
    ]


def critical(capabilities: Iterable[str]) -> Sequence[str]:
    """Those of these that somebody must type the extension's name for."""
    return [name for name in capabilities if EXTENSION_CAPABILITIES[name].risk is Risk.CRITICAL]


def effective(manifest: Manifest, decided: Decisions, now_s: float) -> Mapping[str, Grant]:
    """What counts now, implied capabilities too."""
    own = {
        request.name: _grant(request.name, decided[request.name])
        for request in manifest.capabilities
        if _counts(decided.get(request.name), now_s) and request.name not in PLANNED_CAPABILITIES
    }
    found = dict(own)
    for name, grant in own.items():
        for implied in EXTENSION_CAPABILITIES[name].implies:
            also = Grant(
                capability=implied, scope=grant.scope, rate_per_minute=grant.rate_per_minute,
                budget_per_day=grant.budget_per_day, expires_at_s=grant.expires_at_s, hours=grant.hours,
            )  # fmt: skip
            found[implied] = _merged(found[implied], also) if implied in found else also
    return found


def expired(decided: Decisions, now_s: float) -> Sequence[str]:
    """Capabilities that were granted for a time that is over."""
    return [
        one.capability
        for one in decided.values()
        if one.state == GRANTED and one.expires_at_s is not None and one.expires_at_s <= now_s
    ]


def _fresh(request: CapabilityRequest) -> Decision:
    if request.name in PLANNED_CAPABILITIES:
        return replace(_pending(request), state=REFUSED)
    low = EXTENSION_CAPABILITIES[request.name].risk is Risk.LOW
    return granted(request, PLANE) if low else _pending(request)


def _pending(request: CapabilityRequest) -> Decision:
    return replace(granted(request, PLANE), state=PENDING)


def _narrowed_to(old: Decision, request: CapabilityRequest) -> Decision:
    """The decision for a request that asks for the same or less: no more than was decided, no more than is asked
    for.
    """
    if old.state == PENDING:
        return _pending(request)
    scope = {}
    for kind in KINDS:
        asked, had = _asked(request, kind), list(old.scope.get(kind, ()))
        both = [one for one in asked if _covered(kind, had, one)] + [one for one in had if _covered(kind, asked, one)]
        scope[kind] = list(dict.fromkeys(both))
    return replace(old, scope=scope, rate_per_minute=min(old.rate_per_minute, rate_of(request)))


def _problem(
    request: CapabilityRequest, scope: Mapping[str, Sequence[str]], rate_per_minute: int | None, hours: str
) -> str:
    kinds = SCOPE_KINDS.get(request.name, ())
    for kind, names in scope.items():
        if kind not in kinds:
            return f"it has no scope {kind}" + (f", only {', '.join(kinds)}" if kinds else "")
        if len(names) > _MAX_SCOPES:
            return f"{len(names)} {kind}, at most {_MAX_SCOPES} are allowed"
        asked = _asked(request, kind)
        for name in names:
            if (wrong := scope_problem(kind, name)) is not None:
                return f"{name[:60]!r}: {wrong}"
            if not _covered(kind, asked, name):
                return f"the manifest does not ask for {name}"
    if rate_per_minute is not None and rate_per_minute > rate_of(request):
        return f"the manifest asks for {rate_of(request)} calls a minute"
    if hours and parse_hours(hours) is None:
        return f"{hours!r} are no hours such as 09:00-17:00"
    return ""


def _asked(request: CapabilityRequest, kind: str) -> Sequence[str]:
    return asked_for(request.name, kind, getattr(request, kind))


def _covered(kind: str, wide: Sequence[str], narrow: str) -> bool:
    return any(covers(kind, one, narrow) for one in wide)


def _counts(decision: Decision | None, now_s: float) -> bool:
    if decision is None or decision.state != GRANTED:
        return False
    return decision.expires_at_s is None or decision.expires_at_s > now_s


def _grant(name: str, decision: Decision) -> Grant:
    return Grant(
        capability=name,
        scope={kind: tuple(decision.scope.get(kind, ())) for kind in KINDS},
        rate_per_minute=decision.rate_per_minute,
        budget_per_day=decision.budget_per_day,
        expires_at_s=decision.expires_at_s,
        hours=decision.hours,
    )


def _merged(own: Grant, implied: Grant) -> Grant:
    """Both scopes under the tighter of both limits; whoever computes this again when one ends gets the rest back. With
    two windows of hours no one window says both, so the extension's own counts alone.
    """
    if own.hours and implied.hours and own.hours != implied.hours:
        return own
    return Grant(
        capability=own.capability,
        scope={kind: tuple(dict.fromkeys((*own.scope[kind], *implied.scope[kind]))) for kind in KINDS},
        rate_per_minute=max(own.rate_per_minute, implied.rate_per_minute),
        budget_per_day=_least(own.budget_per_day, implied.budget_per_day),
        expires_at_s=_least(own.expires_at_s, implied.expires_at_s),
        hours=own.hours or implied.hours,
    )


def _least(one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
