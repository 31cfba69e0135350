"""What the self-test thinks of a machine, as far as it can be said without touching one."""

from __future__ import annotations

import resource
from collections.abc import Mapping

import pytest

from magmobo.kernel import selftest
from magmobo.kernel.errors import SelfTestFailed
from magmobo.kernel.selftest import Finding, refuse_fatal, sandbox_findings

NOW_S = 1_795_000_000.0
FULL = {
    "/proc/sys/user/max_user_namespaces": "12345",
    "/proc/sys/kernel/unprivileged_userns_clone": "1",
    "/proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread trap errno user_notif trace log allow",
    "/proc/self/cgroup": "0::/user.slice/mag.service",
    "/sys/fs/cgroup/cgroup.controllers": "cpu memory pids",
}


def sandbox(
    files: Mapping[str, str | None] = {}, *, abi: int = 4, is_root: bool = False, writable: bool = True
) -> dict[str, Finding]:
    known = {**FULL, **files}
    found = sandbox_findings(known.get, landlock_abi=abi, is_root=is_root, can_write=lambda _path: writable)
    return {one.name: one for one in found}


def test_a_machine_with_everything() -> None:
    found = sandbox()
    assert all(one.ok and not one.remedy for one in found.values())
    assert found["Landlock"].detail == "ABI 4"


@pytest.mark.parametrize(
    ("files", "name", "remedy"),
    [
        ({"/proc/sys/user/max_user_namespaces": None}, "user namespaces", "CONFIG_USER_NS"),
        ({"/proc/sys/user/max_user_namespaces": "0"}, "user namespaces", "sysctl -w user.max_user_namespaces="),
        (
            {"/proc/sys/kernel/unprivileged_userns_clone": "0"},
            "user namespaces",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "user namespaces",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({"/proc/sys/kernel/seccomp/actions_avail": None}, "seccomp", "CONFIG_SECCOMP_FILTER"),
        ({"/proc/self/cgroup": "4:memory:/"}, "cgroup delegation", "unified_cgroup_hierarchy"),
        ({"/proc/self/cgroup": None}, "cgroup delegation", "unified_cgroup_hierarchy"),
    ],
)
def test_what_is_missing_comes_with_the_way_to_get_it(files: dict[str, str | None], name: str, remedy: str) -> None:
    found = sandbox(files)
    assert remedy in found[name].remedy
    assert [one.name for one in found.values() if not one.ok] == [name]
    assert not found[name].fatal


def test_without_landlock_or_a_cgroup_of_ones_own() -> None:
    found = sandbox(abi=0, writable=False)
    assert "lsm=" in found["Landlock"].remedy
    assert found["cgroup delegation"].detail == "/sys/fs/cgroup/user.slice/mag.service is not ours"
    assert "Delegate=yes" in found["cgroup delegation"].remedy


def test_root_needs_no_leave_for_user_namespaces() -> None:
    assert sandbox({"/proc/sys/kernel/unprivileged_userns_clone": "0"}, is_root=True)["user namespaces"].ok


@pytest.mark.parametrize(
    ("time_s", "last_time_s", "complaint"),
    [
        (NOW_S, None, ""),
        (NOW_S, NOW_S - 1e6, ""),
        (NOW_S, NOW_S + 119, ""),  # NTP may set it back a little
        (NOW_S, NOW_S + 3_600, "3600 s before this node's last start"),
        (0.0, None, "1970-01-01 00:00 UTC, which cannot be"),
        (1e12, None, "which cannot be"),
        (-5.0, None, "which cannot be"),
    ],
)
def test_the_clock(time_s: float, last_time_s: float | None, complaint: str) -> None:
    found = selftest.check_clock(time_s, last_time_s)
    assert found.ok == (not complaint)
    assert complaint in found.detail
    assert bool(found.remedy) == bool(complaint)
    assert not found.fatal, "a node with a wrong clock is better than none"


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "remedy"),
    [
        (1_024, 4_096, 0, ""),
        (20_000, 20_000, 10_000, ""),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 10**6, ""),
        (1_024, 20_000, 10_000, "`ulimit -n 10256` before `mag up`; with systemd LimitNOFILE=10256"),
        (1_024, resource.RLIM_INFINITY, 10_000, "`ulimit -n 10256` before `mag up`; with systemd LimitNOFILE=10256"),
        (1_024, 4_096, 10_000, "As root `ulimit -n 10256` before `mag up` (the hard limit is 4096)"),
        (256, 4_096, 0, "`ulimit -n 1024`"),
    ],
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, remedy: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    found = selftest.check_descriptors(wanted)
    assert found.ok == (not remedy)
    assert remedy in found.remedy


def test_only_what_is_fatal_refuses() -> None:
    refuse_fatal([Finding("a", True, "", fatal=True), Finding("b", False, "bad", "mend it")])
    with pytest.raises(SelfTestFailed, match="c: worse") as caught:
        refuse_fatal([Finding("b", False, "bad"), Finding("c", False, "worse", "mend that", fatal=True)])
    assert caught.value.next_step() == "mend that"
