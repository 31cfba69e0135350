"""What extensions ask of each other and of the node: resolved before anything is installed, enabled or taken away.

Boundary: manifests in, an order or every unmet requirement out; what is installed is for the caller to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from magmobo.extensions.package.errors import RequirementsUnmet, VersionInvalid
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.versions import parse_range, parse_version

_PEP_440 = re.compile(r"([0-9]+(?:\.[0-9]+){0,2})(?:\.?(a|b|rc|dev)([0-9]+))?")
_WORDS = {"a": "alpha", "b": "beta", "rc": "rc", "dev": "dev"}


def resolve(installed: Mapping[str, Manifest], wanted: Manifest, *, node_version: str) -> Sequence[str]:
    """That `wanted` can run beside what is installed, in the place of its own older version if that is there.

    Args:
        installed: id -> manifest of the extensions that count: those that are enabled.
        node_version: as `magmobo.__version__` says it.
    Returns: every id, `wanted` among them, each behind those that it requires: the order to start them in.
    Raises: RequirementsUnmet with everything that is in the way.
    """
    others = {name: manifest for name, manifest in installed.items() if name != wanted.id}
    problems = [*_node_problems(wanted, node_version), *_missing(wanted, others), *_conflicts(wanted, others)]
    problems += [
        f"{name} {manifest.version} requires {wanted.id} {manifest.requires.extensions[wanted.id]}"
        for name, manifest in sorted(others.items())
        if wanted.id in manifest.requires.extensions
        and not _fits(wanted.version, manifest.requires.extensions[wanted.id])
    ]
    together = {**others, wanted.id: wanted}
    if circle := sorted(name for name in _required(together, wanted.id) if wanted.id in _required(together, name)):
        problems.append(f"it would wait for itself: {', '.join(circle)} require each other")
    if problems:
        raise RequirementsUnmet(wanted.id, problems)
    return start_order(together.values())


def start_order(manifests: Iterable[Manifest]) -> Sequence[str]:
    """Ids, each behind those it requires; those that require each other come last, by name."""
    by_id = {one.id: one for one in manifests}
    waiting = {name: set(by_id[name].requires.extensions) & by_id.keys() for name in sorted(by_id)}
    order: list[str] = []
    while ready := [name for name, required in waiting.items() if required <= set(order)]:
        order += ready
        waiting = {name: required for name, required in waiting.items() if name not in ready}
    return [*order, *waiting]


def dependents(installed: Mapping[str, Manifest], extension_id: str) -> Sequence[str]:
    """Ids of those that require this one, directly or through others, in the order to stop them in."""
    found = [name for name in installed if name != extension_id and extension_id in _required(installed, name)]
    return [*reversed(start_order(installed[name] for name in found))]


def node_semver(version: str) -> str:
    """The node's version as a semantic one: `0.2.0rc1` is `0.2.0-rc.1`. Raises: VersionInvalid.

    >>> node_semver("0.2.dev3")
    '0.2.0-dev.3'
    """
    found = _PEP_440.fullmatch(version)
    if found is None:
        return str(parse_version(version))
    numbers = ".".join((*found[1].split("."), "0", "0")[:3])
    return str(parse_version(numbers + (f"-{_WORDS[found[2]]}.{found[3]}" if found[2] else "")))


def _node_problems(wanted: Manifest, node_version: str) -> Iterable[str]:
    version = parse_version(node_semver(node_version))
    # A node that runs a pre-release is what it calls itself: nobody gets it by a range alone.
    if not parse_range(wanted.requires.magmobo).allows(version, prereleases=True):
        yield f"it requires MagMoBo {wanted.requires.magmobo}, this is {version}"


def _missing(wanted: Manifest, others: Mapping[str, Manifest]) -> Iterable[str]:
    for name, text in sorted(wanted.requires.extensions.items()):
        other = others.get(name)
        if other is None:
            yield f"it requires {name} {text}, which is not enabled"
        elif not _fits(other.version, text):
            yield f"it requires {name} {text}, {other.version} is there"


def _conflicts(wanted: Manifest, others: Mapping[str, Manifest]) -> Iterable[str]:
    for name, other in sorted(others.items()):
        if name in wanted.requires.conflicts or wanted.id in other.requires.conflicts:
            whose = "it" if name in wanted.requires.conflicts else name
            yield f"{whose} cannot be beside {name if whose == 'it' else wanted.id}, and {name} is enabled"


def _fits(version: str, text: str) -> bool:
    try:
        return parse_range(text).allows(parse_version(version))
    except VersionInvalid:
        return False


def _required(manifests: Mapping[str, Manifest], extension_id: str) -> set[str]:
    """Everything that one requires, directly or through others."""
    found: set[str] = set()
    waiting = [extension_id]
    while waiting:
        manifest = manifests.get(waiting.pop())
        new = set(manifest.requires.extensions) - found if manifest is not None else set()
        found |= new
        waiting += new
    return found
