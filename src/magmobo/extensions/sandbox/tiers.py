"""Tiers: what the sandbox of this machine is worth, out of what was found, and how to get more.

S3: system calls, files, and a world of its own; S2: system calls and files (an unprivileged container); S1: system
calls and a world of its own, on a kernel without Landlock; S0: nothing that holds. Boundary: no probing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from magmobo.contracts.extensions import DoctorLine, SandboxReport
from magmobo.extensions.sandbox.control import Finding
from magmobo.extensions.sandbox.kinds import Layer


class Tier(StrEnum):
    """What a sandbox is worth; a greater name is a better sandbox."""

    S0 = "S0"
    S1 = "S1"
    S2 = "S2"
    S3 = "S3"


_OWN_WORLD = frozenset({Layer.PIDS, Layer.NAMESPACES, Layer.ROOT})
_ALWAYS = frozenset({Layer.LIMITS, Layer.PRIVILEGES})
_NAMES: Mapping[str, str] = {
    Layer.SECCOMP: "seccomp",
    Layer.LANDLOCK: "Landlock",
    Layer.NAMESPACES: "namespaces",
    Layer.PIDS: "pid namespace",
    Layer.ROOT: "minimal root",
    Layer.CGROUP: "control groups",
    Layer.USER: "uid per extension",
}
_CONTAINER = "in a container, start it with the seccomp profile of docs/sandbox.md"
_REMEDIES: Mapping[str, str] = {
    Layer.SECCOMP: "a Linux kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",
    Layer.LANDLOCK: "Linux 5.13 or later with `landlock` in its list of security modules (boot option lsm=landlock,…)",
    Layer.NAMESPACES: f"allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    f"kernel.apparmor_restrict_unprivileged_userns=0); {_CONTAINER}",
    Layer.PIDS: f"comes with namespaces; {_CONTAINER}",
    Layer.ROOT: f"comes with namespaces; {_CONTAINER}, and under AppArmor with a profile that lets it mount",
    Layer.CGROUP: "optional: run as root, or as a service with Delegate=yes and DelegateSubgroup=node (systemd 254)",
    Layer.USER: "optional: run the node as root, with the interpreter in a folder that every user may enter",
}


class Tiers(Struct, frozen=True):
    """What this machine gives: the tier, the layers that work here, and what was found of each."""

    tier: Tier
    layers: frozenset[Layer]
    findings: Sequence[Finding]

    @property
    def missing(self) -> str:
        """What a better tier would want, in words."""
        lacking = [f"{_NAMES[one.name]} ({one.detail})" for one in self.findings if not one.ok and _counts(one.name)]
        return "; ".join(lacking)


def judge(findings: Sequence[Finding]) -> Tiers:
    """The tier that these findings make."""
    working = frozenset(Layer(one.name) for one in findings if one.ok)
    if Layer.NAMESPACES not in working:
        working -= {Layer.PIDS, Layer.ROOT}  # a zygote that is root has the rights for the first only with all of them
    if Layer.SECCOMP not in working:
        tier = Tier.S0
    elif Layer.LANDLOCK in working:
        tier = Tier.S3 if working >= _OWN_WORLD else Tier.S2
    else:
        tier = Tier.S1 if working >= _OWN_WORLD else Tier.S0
    return Tiers(tier, working | _ALWAYS, findings)


def report(tiers: Tiers) -> SandboxReport:
    """For people: a line for each part, with what to do about those that are missing."""
    by_name = {one.name: one for one in tiers.findings}
    lines = [
        DoctorLine(name, one.ok, one.detail or "works", "" if one.ok else _REMEDIES[layer])
        for layer, name in _NAMES.items()
        if (one := by_name.get(layer))
    ]
    return SandboxReport(tiers.tier, lines)


def _counts(name: str) -> bool:
    return name in _OWN_WORLD or name in (Layer.SECCOMP, Layer.LANDLOCK)
