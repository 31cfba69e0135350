"""What a machine's sandbox is worth, by what was found of its parts."""

from __future__ import annotations

from itertools import combinations

import pytest

from magmobo.extensions.sandbox import tiers
from magmobo.extensions.sandbox.control import Finding
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.tiers import Tier

FOUND = [
    Layer.SECCOMP, Layer.LANDLOCK, Layer.PIDS, Layer.NAMESPACES, Layer.ROOT, Layer.CGROUP, Layer.USER,
]  # fmt: skip


def judged(*working: Layer) -> tiers.Tiers:
    return tiers.judge([Finding(layer, layer in working, "why not") for layer in FOUND])


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ((), Tier.S3),
        ((Layer.CGROUP, Layer.USER), Tier.S3),
        ((Layer.PIDS,), Tier.S2),
        ((Layer.ROOT,), Tier.S2),
        ((Layer.PIDS, Layer.NAMESPACES, Layer.ROOT), Tier.S2),
        ((Layer.LANDLOCK,), Tier.S1),
        ((Layer.LANDLOCK, Layer.ROOT), Tier.S0),
        ((Layer.SECCOMP,), Tier.S0),
        (tuple(FOUND), Tier.S0),
    ],
)
def test_the_tier_by_what_is_missing(without: tuple[Layer, ...], expected: Tier) -> None:
    assert judged(*(layer for layer in FOUND if layer not in without)).tier is expected


def test_more_parts_never_make_a_worse_tier() -> None:
    for size in range(len(FOUND)):
        for some in combinations(FOUND, size):
            for one in set(FOUND) - set(some):
                assert judged(*some, one).tier >= judged(*some).tier, (some, one)


def test_every_part_that_is_missing_has_a_remedy_and_no_other() -> None:
    report = tiers.report(judged(Layer.SECCOMP))

    assert report.tier == "S0"
    assert [line.name for line in report.lines if line.ok] == ["seccomp"]
    assert all(bool(line.remedy) != line.ok for line in report.lines)
    assert len(report.lines) == len(FOUND)


def test_limits_and_privileges_need_no_probing() -> None:
    assert {Layer.LIMITS, Layer.PRIVILEGES} <= judged().layers


def test_a_minimal_root_takes_a_mount_namespace() -> None:
    assert Layer.ROOT not in judged(Layer.SECCOMP, Layer.LANDLOCK, Layer.ROOT).layers


def test_a_pid_namespace_takes_the_others() -> None:
    """A zygote that is root without the right to make one gets that right only where all of them work."""
    assert Layer.PIDS not in judged(Layer.SECCOMP, Layer.LANDLOCK, Layer.PIDS).layers


def test_what_is_missing_is_said_for_a_better_tier_alone() -> None:
    missing = judged(Layer.SECCOMP, Layer.LANDLOCK, Layer.PIDS, Layer.NAMESPACES).missing

    assert missing == "minimal root (why not)"
