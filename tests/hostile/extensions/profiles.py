"""Makes this process what a node is run as: a plain user, root, or something in a container.

`python profiles.py PROFILE SCRIPT …` takes on the profile and goes on with the script. A container is played by what
its engine does to a process: capabilities dropped, and a filter that refuses namespaces and mounts.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from magmobo.extensions.sandbox import libc, privileges, seccomp
from magmobo.extensions.sandbox.seccomp import If, Rule, Verdict

USER = 12_345
_MOUNTS, _PRIVATE, _BIND = 0x20000, 16384 | 1 << 18, 4096
_ENGINE_KEEPS = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
"""Capabilities that Docker 20.10 and Podman 4.3 leave to root: a80425fb in /proc/self/status of a real container."""
_ALMOST_FOR_UIDS = (1, 3, 5, 6, 7)
"""All but CHOWN of what root needs to give workers uids of their own."""
_PROFILE = Path(__file__).resolve().parents[3] / "docs" / "sandbox-seccomp.json"
_ENGINE_REFUSES = (
    "unshare", "setns", "mount", "umount2", "pivot_root", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount",
    "open_tree", "mount_setattr", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "add_key",
    "request_key", "quotactl", "acct", "swapon", "swapoff", "reboot", "init_module", "finit_module", "delete_module",
    "kexec_load", "kexec_file_load", "open_by_handle_at", "fanotify_init",
)  # fmt: skip
"""What the default profile of Docker refuses, and that of others who follow it. Seen with Docker 20.10."""
_PODMAN_REFUSES = (
    "sethostname", "setdomainname", "setns", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "quotactl",
    "acct", "swapon", "swapoff", "reboot", "init_module", "finit_module", "delete_module", "kexec_load",
    "kexec_file_load", "open_by_handle_at", "fanotify_init", "kcmp",
)  # fmt: skip
"""What the default profile of Podman refuses to who lacks CAP_SYS_ADMIN: namespaces and mounts are not among them, the
name of the host is. Seen with Podman 4.3 and its `seccomp.json` of containers-common 0.50.
"""


def make_passable(paths: list[Path]) -> None:
    """Let every user come to these folders, as on a machine where Python is installed for everybody: folders above that
    are closed are covered, in a mount namespace of this process, by empty ones that hold just the way.
    """
    libc.unshare(_MOUNTS)
    libc.mount(None, b"/", None, _PRIVATE, None)
    for path in paths:
        closed = [one for one in reversed(path.parents) if not one.stat().st_mode & 0o001]
        if not closed:
            continue
        held = os.open(path, os.O_PATH)
        libc.mount(b"none", str(closed[0]).encode(), b"tmpfs", 0, b"mode=755")
        path.mkdir(parents=True)
        libc.mount(f"/proc/self/fd/{held}".encode(), str(path).encode(), None, _BIND, None)
        os.close(held)


def become_user() -> None:
    """A user without groups, rights or a home."""
    make_passable([Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), Path(__file__).resolve().parents[3]])
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    os.environ["HOME"] = "/nonexistent"


def keep_what_engines_keep(capabilities: Sequence[int] = _ENGINE_KEEPS) -> None:
    """Root's capabilities as in a container."""
    for capability in range(64):
        if capability not in capabilities:
            try:
                libc.prctl(24, capability)
            except OSError:
                break
    kept = sum(1 << one for one in capabilities)
    libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", kept, kept, 0, 0, 0, 0))


def refuse(names: Sequence[str], others: Sequence[Rule] = ()) -> None:
    """Put a filter on this process, as far as our tables have the names."""
    target = seccomp.machine()
    assert target is not None
    rules = [*(Rule(name, Verdict.DENY) for name in names), *others]
    seccomp.install(seccomp.assemble(rules, target, Verdict.ALLOW), target)


def refuse_what_engines_refuse() -> None:
    """The filter of a container."""
    namespaces = Rule("clone", Verdict.DENY, [If(0, 0, 0x7E020000, is_equal=False)])
    refuse(_ENGINE_REFUSES, [namespaces, Rule("clone3", Verdict.ABSENT)])


def take_on(profile: str) -> None:
    """Become one of: root, user, container, container-root, container-root-of-few, container-with-profile, podman,
    podman-root.
    """
    if profile == "user" and os.geteuid() == 0:
        become_user()
    elif profile == "container":
        if os.geteuid() == 0:
            become_user()
        privileges.drop()
        refuse_what_engines_refuse()
    elif profile in ("container-root", "container-root-of-few"):
        make_passable([Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()])
        keep_what_engines_keep(_ENGINE_KEEPS if profile == "container-root" else _ALMOST_FOR_UIDS)
        libc.prctl(38, 1)
        refuse_what_engines_refuse()
    elif profile == "container-with-profile":
        keep_what_engines_keep()
        libc.prctl(38, 1)
        refuse(json.loads(_PROFILE.read_text())["syscalls"][0]["names"])
    elif profile in ("podman", "podman-root"):
        if profile == "podman-root":
            keep_what_engines_keep()
        elif os.geteuid() == 0:
            become_user()
        libc.prctl(38, 1)
        refuse(_PODMAN_REFUSES)


if __name__ == "__main__":
    take_on(sys.argv[1])
    # A program of its own, as a node is: what changed its user may not be looked at by that user.
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
