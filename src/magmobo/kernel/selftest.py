"""The checks before the first component boots: can a node work here, and what should its operator know?

Every check reads, none repairs; only the probe of the data folder writes, into a file without a name. A finding that is
`fatal` keeps the node from starting, any other is advice. `run` is for the boot and loads nothing; `examine_sandbox`
and `clock_is_synchronised` ask the operating system through ctypes and are for `mag doctor`.
Sources: landlock(7), user_namespaces(7), seccomp(2), cgroups(7) "delegation", adjtimex(2).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from magmobo.kernel.errors import SelfTestFailed

PROBE_BYTES = 65_536
FLOOR_BYTES, COMFORTABLE_BYTES = 16 * 1_048_576, 512 * 1_048_576
COMFORTABLE_INODES = 1_000
RELEASED_S = 1_767_225_600.0  # 2026-01-01: no machine that runs this code lives in an earlier year
CENTURY_S = 3.15e9
JUMP_TOLERANCE_S = 120.0
SPARE_DESCRIPTORS = 256  # files, pools, pipes of children and the control door, beside clients' connections
ENOUGH_DESCRIPTORS = 1_024
_LANDLOCK_CREATE_RULESET, _VERSION_FLAG = 444, 1
_TIME_ERROR = 5


class Finding(Struct, frozen=True):
    """One thing that was looked at. `remedy` is the next step, empty when all is well."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    fatal: bool = False


def run(
    data_dir: Path,
    *,
    writable: Finding | None = None,
    time_s: float,
    last_time_s: float | None = None,
    descriptors_wanted: int = 0,
    ports: Sequence[tuple[str, int]] = (),
) -> Sequence[Finding]:
    """All checks of a boot, in a few milliseconds. Never raises.

    Args:
        writable: what `check_data_dir` found just now; None: it is looked at again.
        time_s: wall time now; `last_time_s`: wall time that this node noted last, None when it never did.
        descriptors_wanted: connections that clients may open at the same time.
        ports: addresses that somebody will listen on later in the boot.
    """
    writable = writable or check_writable(data_dir)
    if not writable.ok:
        return [writable]
    return [
        writable,
        check_permissions(data_dir),
        check_disk(data_dir),
        check_clock(time_s, last_time_s),
        check_descriptors(descriptors_wanted),
        *(check_port(host, port) for host, port in ports),
    ]


def refuse_fatal(findings: Iterable[Finding]) -> None:
    """Raises: SelfTestFailed for the first finding that is fatal."""
    for finding in findings:
        if finding.fatal and not finding.ok:
            raise SelfTestFailed(finding.name, finding.detail, finding.remedy)


def check_data_dir(data_dir: Path) -> Finding:
    """The node must be able to write, and to make it durable, in its data folder. Raises: SelfTestFailed."""
    found = check_writable(data_dir)
    refuse_fatal([found])
    return found


# ------------------------------------------------------------ the data folder


def check_writable(data_dir: Path) -> Finding:
    """Whether bytes can be made durable there."""
    name, remedy = "data folder", "Give the node a data folder that it owns and can write to (--data-dir)."
    if not data_dir.is_dir():
        return Finding(name, False, f"{data_dir} is not a folder", remedy, fatal=True)
    try:
        _write_and_sync(data_dir)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"Make room on the disk of {data_dir}."
        return Finding(name, False, f"{data_dir} cannot be written ({error.strerror})", remedy, fatal=True)
    return Finding(name, True, str(data_dir))


def _write_and_sync(data_dir: Path) -> None:
    """Into a file without a name, or, where a file system has none, one whose name is gone before anything is in it."""
    flags, mode = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    try:
        descriptor = os.open(data_dir, flags | os.O_TMPFILE, mode)
    except (AttributeError, IsADirectoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        probe = data_dir / ".probe"
        descriptor = os.open(probe, flags | os.O_CREAT, mode)
        probe.unlink()
    try:
        if os.write(descriptor, bytes(PROBE_BYTES)) < PROBE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_permissions(data_dir: Path) -> Finding:
    """Whether the folder, which holds secrets, is this user's alone."""
    name, found = "permissions", data_dir.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid():
        return Finding(
            name, False, f"{data_dir} belongs to uid {found.st_uid}, the node runs as uid {os.geteuid()}",
            f"chown -R {os.geteuid()} {data_dir}, or run the node as its owner.",
        )  # fmt: skip
    if mode & 0o077:
        return Finding(
            name, False, f"others may look into {data_dir} (mode {mode:04o}), which holds secrets",
            f"chmod 700 {data_dir}",
        )  # fmt: skip
    return Finding(name, True, f"mode {mode:04o}")


def check_disk(data_dir: Path) -> Finding:
    """Whether there is room for the log, the state and a database; below the floor a node cannot even say so."""
    found = os.statvfs(data_dir)
    free_bytes = found.f_bavail * found.f_frsize
    detail = f"{free_bytes / 1_073_741_824:.1f} GiB free"
    if free_bytes < COMFORTABLE_BYTES:
        is_fatal = free_bytes < FLOOR_BYTES
        if is_fatal:
            detail = f"{free_bytes / 1_048_576:.1f} MiB free"
        remedy = f"Keep {COMFORTABLE_BYTES // 1_048_576} MiB free on the disk of {data_dir}."
        return Finding("disk", False, detail, remedy, fatal=is_fatal)
    if found.f_files and found.f_favail < COMFORTABLE_INODES:
        remedy = f"Remove files from the disk of {data_dir}; it has room, but no more file entries."
        return Finding("disk", False, f"{found.f_favail} inodes free", remedy)
    return Finding("disk", True, detail)


# ------------------------------------------------------------ the machine


def check_clock(time_s: float, last_time_s: float | None) -> Finding:
    """Whether wall time can be right. Deadlines here are monotonic and do not mind; tokens and certificates do."""
    name, remedy = "clock", "Set the clock and keep it set: `timedatectl set-ntp true`, or chrony."
    shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(min(max(time_s, 0.0), 10 * CENTURY_S))) + " UTC"
    if not RELEASED_S <= time_s <= RELEASED_S + CENTURY_S:
        return Finding(name, False, f"the clock says {shown}, which cannot be", remedy)
    if last_time_s is not None and time_s < last_time_s - JUMP_TOLERANCE_S:
        back_s = last_time_s - time_s
        return Finding(name, False, f"the clock says {shown}, {back_s:.0f} s before this node's last start", remedy)
    return Finding(name, True, shown)


def check_descriptors(wanted: int) -> Finding:
    """Whether the limit of open files lets the node have as many connections as it is configured for."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(wanted + SPARE_DESCRIPTORS, ENOUGH_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return Finding("open files", True, f"limit {'none' if soft == resource.RLIM_INFINITY else soft}")
    shell = f"`ulimit -n {needed}` before `mag up`"
    if hard != resource.RLIM_INFINITY and hard < needed:
        shell = f"as root `ulimit -n {needed}` before `mag up` (the hard limit is {hard})"
    what = f"{wanted} connections want" if wanted else "a node wants"
    return Finding(
        "open files", False, f"limit {soft}, while {what} {needed}",
        f"{shell[0].upper()}{shell[1:]}; with systemd LimitNOFILE={needed} in [Service].",
    )  # fmt: skip


def check_port(host: str, port: int) -> Finding:
    """Whether a listener could have this port now. Port 0 is always free."""
    name = f"port {port}"
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        remedy = f"See who has it with `ss -ltnp 'sport = :{port}'`, or choose another with --port."
        return Finding(name, False, f"{host}:{port} cannot be had ({error.strerror})", remedy)
    return Finding(name, True, f"{host}:{port} is free")


def clock_is_synchronised() -> bool | None:
    """Whether the operating system keeps its clock by NTP; None when it does not tell."""
    import ctypes

    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1_024))  # all zero: asks, sets nothing
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


# ------------------------------------------------------------ the sandbox of extensions

Read = Callable[[str], str | None]


def examine_sandbox() -> Sequence[Finding]:
    """What this operating system offers to lock extensions in with. Reads only; a missing piece is advice."""
    return sandbox_findings(_read, landlock_abi=_landlock_abi(), is_root=os.geteuid() == 0, can_write=_can_write)


def sandbox_findings(
    read: Read, *, landlock_abi: int, is_root: bool, can_write: Callable[[str], bool]
) -> Sequence[Finding]:
    """The judgement behind `examine_sandbox`. `read` gives the text of a file, None when it cannot be read."""
    return [
        _user_namespaces(read, is_root=is_root),
        _landlock(landlock_abi),
        _seccomp(read),
        _cgroup(read, can_write),
    ]


def _user_namespaces(read: Read, *, is_root: bool) -> Finding:
    name = "user namespaces"
    limit = read("/proc/sys/user/max_user_namespaces")
    if limit is None:
        return Finding(name, False, "this kernel has none", "Use a Linux kernel with CONFIG_USER_NS.")
    if limit == "0":
        return Finding(name, False, "switched off", "sysctl -w user.max_user_namespaces=16384")
    for setting, off in (("unprivileged_userns_clone", "0"), ("apparmor_restrict_unprivileged_userns", "1")):
        if not is_root and read(f"/proc/sys/kernel/{setting}") == off:
            wanted = "1" if off == "0" else "0"
            return Finding(name, False, f"kernel.{setting} is {off}", f"sysctl -w kernel.{setting}={wanted}")
    return Finding(name, True, "yes")


def _landlock(abi: int) -> Finding:
    if abi > 0:
        return Finding("Landlock", True, f"ABI {abi}")
    return Finding("Landlock", False, "no", "Use Linux 5.13 or later, with landlock in the boot parameter lsm=.")


def _seccomp(read: Read) -> Finding:
    if "errno" in (read("/proc/sys/kernel/seccomp/actions_avail") or "").split():
        return Finding("seccomp", True, "yes")
    return Finding("seccomp", False, "no", "Use a Linux kernel with CONFIG_SECCOMP_FILTER.")


def _cgroup(read: Read, can_write: Callable[[str], bool]) -> Finding:
    name = "cgroup delegation"
    own = next((line[3:] for line in (read("/proc/self/cgroup") or "").splitlines() if line.startswith("0::")), None)
    if own is None or read("/sys/fs/cgroup/cgroup.controllers") is None:
        return Finding(name, False, "no cgroup v2", "Boot with systemd.unified_cgroup_hierarchy=1.")
    folder = f"/sys/fs/cgroup{own.rstrip('/')}"
    if can_write(f"{folder}/cgroup.procs") and can_write(f"{folder}/cgroup.subtree_control"):
        return Finding(name, True, "yes")
    return Finding(name, False, f"{folder} is not ours", "With systemd: Delegate=yes in [Service].")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _can_write(path: str) -> bool:
    return os.access(path, os.W_OK)


def _landlock_abi() -> int:
    """The version of Landlock, 0 when there is none: the one use of the call that makes nothing."""
    import ctypes

    try:
        abi = ctypes.CDLL(None, use_errno=True).syscall(_LANDLOCK_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except (OSError, AttributeError):
        return 0
    return max(int(abi), 0)
