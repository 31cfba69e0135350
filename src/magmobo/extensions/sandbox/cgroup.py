"""Control groups, where this process may make some: memory as it really is, threads, and at most one CPU a worker.

A group is made beside that of the node (version 2 lets no group both hold processes and divide), or below it (version
1). Nothing depends on them: limits, seccomp and namespaces hold without. Invariant: groups of a process that has ended
are removed by the next one. Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from magmobo.extensions.sandbox import plainfiles
from magmobo.extensions.sandbox.limits import THREADS

_CONTROLLERS = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
_OVERHEAD_BYTES = 64 * 1_048_576
_PREFIX = "magmobo-worker-"
_NOT_EVERYWHERE = ("memory.swap.max", "memory.memsw.limit_in_bytes")
"""Of kernels that count swap. Without these a group at its bound is moved to swap instead of ended."""


class Groups:
    """Where groups can be made: `folders` by controller, of which version 2 has one for all."""

    def __init__(self, folders: Mapping[str, Path], *, is_unified: bool) -> None:
        self._folders, self._is_unified = folders, is_unified
        self._entrances = sorted({str(folder) for folder in folders.values()})
        self._name = f"{_PREFIX}{os.getpid()}-"

    @property
    def text(self) -> str:
        """Which these are, in words."""
        return f"version {2 if self._is_unified else 1}: {', '.join(self._folders)}"

    def make(self, number: int, memory_bytes: int) -> None:
        """The group of worker `number`. Raises: OSError."""
        bound_bytes = memory_bytes + _OVERHEAD_BYTES
        limits: Mapping[str, Mapping[str, object]]
        if self._is_unified:
            limits = {
                "memory": {"memory.max": bound_bytes, "memory.swap.max": 0},
                "pids": {"pids.max": THREADS + 1},
                "cpu": {"cpu.max": f"{_PERIOD_US} {_PERIOD_US}"},
            }
        else:
            limits = {
                # In this order: the one of both together may not be below the one of memory.
                "memory": {"memory.limit_in_bytes": bound_bytes, "memory.memsw.limit_in_bytes": bound_bytes},
                "pids": {"pids.max": THREADS + 1},
                "cpu": {"cpu.cfs_period_us": _PERIOD_US, "cpu.cfs_quota_us": _PERIOD_US},
            }
        for controller, folder in self._folders.items():
            group = f"{folder}/{self._name}{number}"
            with suppress(FileExistsError):
                os.mkdir(group)  # noqa: PTH102 -- see `plainfiles`
            for file, value in limits[controller].items():
                if file not in _NOT_EVERYWHERE or os.access(f"{group}/{file}", os.F_OK):
                    _limit(f"{group}/{file}", str(value))

    def enter(self, number: int) -> None:
        """Move this process into the group. Raises: OSError."""
        for folder in self._entrances:
            plainfiles.write(f"{folder}/{self._name}{number}/cgroup.procs", "0")

    def remove(self, number: int) -> bool:
        """Remove a group whose process has ended. Returns: whether it ended for want of memory."""
        folder = self._folders["memory"] / f"{self._name}{number}"
        ran_out = False
        with suppress(OSError):
            events = (folder / ("memory.events" if self._is_unified else "memory.oom_control")).read_text()
            ran_out = any(line.startswith("oom_kill ") and not line.endswith(" 0") for line in events.splitlines())
        for parent in set(self._folders.values()):
            with suppress(OSError):
                (parent / f"{self._name}{number}").rmdir()
        return ran_out

    def sweep(self) -> None:
        """Remove what zygotes left that have ended."""
        for parent in set(self._folders.values()):
            for group in parent.glob(f"{_PREFIX}*"):
                owner = group.name.removeprefix(_PREFIX).partition("-")[0]
                if not Path(f"/proc/{owner}").exists():
                    with suppress(OSError):
                        group.rmdir()


def find() -> Groups | None:
    """Where this process may make groups, found by making one that a child enters; None: nowhere."""
    for groups in _candidates():
        try:
            groups.make(0, _OVERHEAD_BYTES)
            if _is_entered(groups):
                return groups
        except OSError:
            continue
        finally:
            groups.remove(0)
    return None


def _limit(file: str, value: str) -> None:
    """Write a limit. Raises: OSError."""
    try:
        plainfiles.write(file, value)
    except OSError as error:
        is_less_above = error.errno == errno.EINVAL and file.endswith("/cpu.cfs_quota_us")
        if not is_less_above:  # version 1 refuses more than a group above has, which holds here as well
            raise


def _is_entered(groups: Groups) -> bool:
    """Whether a child may move there, for which version 2 asks the group above both as well. Raises: OSError."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            groups.enter(0)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return status == 0


def _candidates() -> Iterator[Groups]:
    mounts = list(_mounts())
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, _, path = line.split(":", 2)
        if number != "0":
            continue
        for mount, kind, _ in mounts:
            if kind == "cgroup2" and (parent := _dividing(mount / path.strip("/"), mount)):
                yield Groups(dict.fromkeys(_CONTROLLERS, parent), is_unified=True)
    folders: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for mount, kind, on in mounts:
            if kind == "cgroup":
                folders |= {
                    name: mount / path.strip("/") for name in _CONTROLLERS if name in names.split(",") and name in on
                }
    if len(folders) == len(_CONTROLLERS):
        yield Groups(folders, is_unified=False)


def _mounts() -> Iterator[tuple[Path, str, list[str]]]:
    """Where control groups are mounted: the folder, the kind, and the options of its file system."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind.startswith("cgroup"):
            yield Path(before.split(" ")[4]), kind, options.split(",")


def _dividing(own: Path, top: Path) -> Path | None:
    """The group that hands its controllers on to ours: the one above it, told to do so where that is allowed."""
    parent = own.parent if own != top else top
    try:
        offered = (parent / "cgroup.controllers").read_text().split()
        handed_on = (parent / "cgroup.subtree_control").read_text().split()
        missing = [name for name in _CONTROLLERS if name not in handed_on]
        if set(missing) - set(offered):
            return None
        if missing:
            (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))
    except OSError:
        return None
    return parent
