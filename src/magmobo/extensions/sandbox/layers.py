"""What is put around a worker, in which order, and how each layer is applied.

The order is the invariant. Whatever needs the host's files or /proc comes before `ROOT`; whatever needs root's rights
before `USER`; `SECCOMP` is last because it takes the calls that the others are made of. A layer that fails raises
`LayerFailed`, and the process ends before any code of the extension is imported.
Boundary: runs in the child that becomes the worker, with one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct

from magmobo.extensions.sandbox import landlock, limits, namespaces, privileges, root, seccomp
from magmobo.extensions.sandbox.cgroup import Groups
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.syscalls import Machine


class LayerFailed(Exception):
    """A layer could not be applied."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(layer, reason)
        self.layer, self.reason = layer, reason

    def __str__(self) -> str:
        return f"{self.layer}: {self.reason}"


class Plan(Struct, frozen=True, kw_only=True):
    """Everything that the layers of one worker are told. `folders` are all it may see; `owner` is the uid and gid of
    the zygote, `uid` None where that is not root.
    """

    number: int
    layers: frozenset[Layer]
    folders: Sequence[root.Folder]
    memory_bytes: int
    file_bytes: int
    temp_bytes: int
    owner: tuple[int, int]
    uid: int | None
    machine: Machine
    programs: seccomp.Programs
    groups: Groups | None

    @property
    def counts_processes(self) -> bool:
        """Whether a limit on processes would count those of this worker alone; without, it gets no threads."""
        return Layer.USER in self.layers or self.has_own_user_namespace

    @property
    def has_own_user_namespace(self) -> bool:
        """Whether it takes one to leave the host's namespaces. Root needs none, and its workers have a uid each."""
        return self.owner[0] != 0 and bool(self.layers & {Layer.PIDS, Layer.NAMESPACES})

    @property
    def fork_flags(self) -> int:
        """Namespaces that the worker is forked into."""
        pids = namespaces.PIDS if Layer.PIDS in self.layers else 0
        return pids | (namespaces.USER if self.has_own_user_namespace else 0)


def apply(plan: Plan, hand_over: Callable[[int], None]) -> None:
    """Put all layers of the plan around this process, which from then on ends with its parent. `hand_over` gets the
    descriptor by which forbidden system calls are heard, where the kernel has that; else it ends the process itself.

    Raises: LayerFailed.
    """
    if plan.has_own_user_namespace:
        try:
            namespaces.map_self(*plan.owner)
        except OSError as error:
            raise LayerFailed(Layer.NAMESPACES, str(error)) from error
    steps: Mapping[Layer, Callable[[], None]] = {
        Layer.NAMESPACES: lambda: _namespaces(plan),
        Layer.LIMITS: lambda: _limits(plan),
        Layer.CGROUP: lambda: _cgroup(plan),
        Layer.ROOT: lambda: _root(plan),
        Layer.USER: lambda: _user(plan),
        Layer.PRIVILEGES: privileges.drop,
        Layer.LANDLOCK: lambda: _landlock(plan),
        Layer.SECCOMP: lambda: _seccomp(plan, hand_over),
    }
    for layer, put in steps.items():
        try:
            if layer is Layer.SECCOMP:
                privileges.end_with_parent()  # a change of user or capabilities takes this back, seccomp forbids it
            if layer in plan.layers:
                put()
        except (OSError, ValueError) as error:
            raise LayerFailed(layer, str(error)) from error


def _namespaces(plan: Plan) -> None:
    namespaces.isolate(with_mounts=Layer.ROOT in plan.layers)


def _limits(plan: Plan) -> None:
    limits.apply(plan.memory_bytes, plan.file_bytes, counts_processes=plan.counts_processes)


def _cgroup(plan: Plan) -> None:
    if plan.groups is None:
        raise OSError("there are no control groups")
    plan.groups.enter(plan.number)


def _root(plan: Plan) -> None:
    owner = plan.owner if plan.uid is None else (plan.uid, plan.uid)
    root.pivot(plan.machine, plan.folders, plan.temp_bytes, owner)


def _user(plan: Plan) -> None:
    if plan.uid is None:
        raise ValueError("no uid was given")
    for folder in plan.folders:
        if folder.is_writable:
            os.chown(folder.path, plan.uid, plan.uid, follow_symlinks=False)
    privileges.become(plan.uid)
    for folder in plan.folders:
        if not os.access(folder.path, os.R_OK | os.X_OK):
            raise PermissionError(f"uid {plan.uid} cannot enter {_closed(folder.path)}, on the way to what it needs")


def _closed(path: str) -> str:
    """The first folder on the way that this process may not enter."""
    steps = [path[:at] for at in range(1, len(path)) if path[at] == "/"]
    return next((step for step in steps if not os.access(step, os.X_OK)), path)


def _landlock(plan: Plan) -> None:
    writable = [folder.path for folder in plan.folders if folder.is_writable]
    readable = [folder.path for folder in plan.folders if not folder.is_writable]
    if Layer.ROOT in plan.layers:
        writable.append(root.TEMP)
    writable += [device for device in root.DEVICES if os.access(device, os.W_OK)][:1]
    readable += [device for device in root.DEVICES if os.access(device, os.R_OK)]
    landlock.restrict(plan.machine, readable, writable)


def _seccomp(plan: Plan, hand_over: Callable[[int], None]) -> None:
    chosen = plan.programs.alone
    # Under another filter, which may refuse the call first and so hide that it was made, only ending the process is
    # sure to come before that. Old kernels cannot report either. Which call it was is then not known.
    if not seccomp.is_filtered():
        with suppress(OSError):
            listener = seccomp.listen(plan.programs.reporting, plan.machine)
            hand_over(listener)
            os.close(listener)
            chosen = plan.programs.beside_reporting
    seccomp.install(chosen[plan.counts_processes].of_process(os.getpid()), plan.machine)
