"""What may take the place of an installed version, and what it would be allowed beyond it.

Boundary: facts of two versions in, a refusal or a difference out; who approves is for the lifecycle. Invariant: what
the new version could do and the old one could not is in the difference.
Source: CONTRACTS section 5 (an upgrade that asks for more waits for approval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from msgspec import Struct

from magmobo.contracts.extensions import EXTENSION_CAPABILITIES, Risk, Widening
from magmobo.extensions.package.errors import UpgradeRefused
from magmobo.extensions.package.manifest import CapabilityRequest, EndpointBinding, Manifest
from magmobo.extensions.package.scopes import KINDS, asked_for, covers
from magmobo.extensions.package.versions import parse_version

_RISKS = tuple(Risk)


class Release(Protocol):
    """What identifies a version; `Package` and `Installed` both do."""

    @property
    def id(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def signer(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class Diff(Struct, frozen=True):
    """From one manifest to the next. `added` and `removed` are names of capabilities, implied ones too; `risk` is the
    highest of what is added or widened, None when nothing is.
    """

    added: Sequence[str]
    removed: Sequence[str]
    widened: Sequence[Widening]
    risk: Risk | None

    @property
    def more(self) -> Set[str]:
        """The capabilities that somebody has to approve: new ones, and those that reach further."""
        return {*self.added, *(one.capability for one in self.widened)}


def check_upgrade(before: Release, after: Release) -> None:
    """That `after` may take the place of `before`: the same extension, by the same signer, and newer.

    Raises: UpgradeRefused.
    """
    if before.id != after.id:
        raise UpgradeRefused(f"{after.id} is another extension than {before.id}")
    if before.signer != after.signer:
        raise UpgradeRefused(f"it is signed with key {after.signer}, {before.id} with {before.signer}")
    order = parse_version(after.version).compare(parse_version(before.version))
    if order < 0:
        raise UpgradeRefused(f"{after.version} is older than {before.version}, which is installed")
    if order == 0:
        same = before.sha256 == after.sha256
        raise UpgradeRefused(
            f"{before.version} is installed" + ("" if same else ", with other content under the same version")
        )


def capability_diff(before: Manifest, after: Manifest) -> Diff:
    """What changes for whoever approves."""
    had, has = effective_requests(before), effective_requests(after)
    added = sorted(has.keys() - had.keys())
    widened = [one for name in sorted(has.keys() & had.keys()) for one in _widened(name, had[name], has[name])]
    if "api.register_endpoint" in had:
        widened += _opened(before.endpoints, after.endpoints)
    names = [*added, *(one.capability for one in widened)]
    return Diff(
        added=added,
        removed=sorted(had.keys() - has.keys()),
        widened=widened,
        risk=highest_risk(names),
    )


def effective_requests(manifest: Manifest) -> Mapping[str, Sequence[CapabilityRequest]]:
    """Every capability that it would have, implied ones too -> the requests that give it."""
    found: dict[str, list[CapabilityRequest]] = {}
    for request in manifest.capabilities:
        known = EXTENSION_CAPABILITIES.get(request.name)
        for name in (request.name, *(known.implies if known is not None else ())):
            found.setdefault(name, []).append(request)
    return found


def highest_risk(capabilities: Sequence[str]) -> Risk | None:
    """The highest risk among these, None for none; one that is not in the catalogue counts as critical."""
    risks = [
        EXTENSION_CAPABILITIES[name].risk if name in EXTENSION_CAPABILITIES else Risk.CRITICAL for name in capabilities
    ]
    return max(risks, key=_RISKS.index, default=None)


def rate_of(request: CapabilityRequest) -> int:
    """Calls a minute that a request asks for: what it says, else what the catalogue gives."""
    return request.rate_per_minute or EXTENSION_CAPABILITIES[request.name].rate_per_minute


def _widened(name: str, before: Sequence[CapabilityRequest], after: Sequence[CapabilityRequest]) -> Sequence[Widening]:
    found = []
    for kind in KINDS:
        had = [scope for request in before for scope in asked_for(request.name, kind, getattr(request, kind))]
        has = {scope for request in after for scope in asked_for(request.name, kind, getattr(request, kind))}
        new = (scope for scope in sorted(has) if not any(covers(kind, wide, scope) for wide in had))
        found += [Widening(name, kind, scope) for scope in new]
    rate = max(map(rate_of, after))
    if rate > max(map(rate_of, before)):
        found.append(Widening(name, "rate_per_minute", str(rate)))
    return found


def _opened(before: Sequence[EndpointBinding], after: Sequence[EndpointBinding]) -> Sequence[Widening]:
    """Endpoints that anybody may ask now."""
    open_before = {(one.method, one.path) for one in before if one.public}
    opened = ((one.method, one.path) for one in after if one.public)
    return [
        Widening("api.register_endpoint", "endpoints", f"{method} {path} for everybody")
        for method, path in sorted(opened)
        if (method, path) not in open_before
    ]
