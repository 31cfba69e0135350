"""What works on this machine, found by doing it: each layer is tried in a child that then ends.

Files that announce features lie in containers, so none is asked. Invariant: the process that tries is afterwards as it
was. Runs in the zygote, before it serves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from magmobo.extensions.sandbox import cgroup, forks, landlock, namespaces, privileges, root, seccomp
from magmobo.extensions.sandbox.control import Finding
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.syscalls import MACHINES, Machine

_NOBODY = 65_534
_TEMP_BYTES = 1_048_576
_FOR_UIDS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7}
"""What root needs to give workers uids of their own, to look after their files, and to end them: capabilities(7)."""
Say = Callable[[Layer, str], None]
"""Tells that a layer works (empty) or why it does not."""


class Tried(Struct, frozen=True):
    """What was found. `enters_user_namespace`: the zygote is root, but not allowed what namespaces take."""

    findings: Sequence[Finding]
    machine: Machine
    enters_user_namespace: bool


def groups() -> cgroup.Groups | None:
    """Where control groups can be made; those of zygotes that ended are removed."""
    try:
        found = cgroup.find()
    except (OSError, ValueError):
        return None
    if found:
        found.sweep()
    return found


def run(folders: Sequence[root.Folder], found: cgroup.Groups | None) -> Tried:
    """Try every layer."""
    machine = seccomp.machine()
    known = machine or next(iter(MACHINES.values()))
    results: dict[Layer, str] = dict.fromkeys((Layer.PIDS, Layer.NAMESPACES, Layer.ROOT), "not tried")
    results |= _in_child(lambda say: _namespaces(known, folders, say))
    if machine is None:
        results[Layer.SECCOMP] = results[Layer.LANDLOCK] = f"no table of system calls for {os.uname().machine}"
    else:
        results |= _in_child(lambda say: _seccomp(machine, say))
        results |= _in_child(lambda say: _landlock(machine, say))
    is_own_root = not results[Layer.ROOT]
    results |= _in_child(lambda say: _user([] if is_own_root else folders, say))
    results[Layer.CGROUP] = "" if found else "no control groups can be made"
    details = {
        Layer.LANDLOCK: f"version {landlock.version(known)}",
        Layer.CGROUP: found.text if found else "",
        Layer.NAMESPACES: "of root" if privileges.has(privileges.SYS_ADMIN) else "within a user namespace",
    }
    findings = [Finding(layer, not why, why or details.get(layer, "")) for layer, why in sorted(results.items())]
    works = not results[Layer.NAMESPACES] and not results[Layer.PIDS]
    return Tried(findings, known, works and os.geteuid() == 0 and not privileges.has(privileges.SYS_ADMIN))


def enter_namespaces(tried: Tried) -> None:
    """Give this process what it needs to make namespaces for its children. Raises: OSError."""
    if tried.enters_user_namespace:
        namespaces.enter_as_root()
        privileges.end_with_parent()


def _in_child(trial: Callable[[Say], None]) -> dict[Layer, str]:
    """What a trial says in a child. What it raises is said of the layer that it came to."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            trial(lambda layer, why: _say(writing, layer, why))
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as said:  # noqa: PTH123 -- a pipe
        lines = [line.rstrip("\n").partition("\t") for line in said]
    os.waitpid(child, 0)
    return {Layer(layer): why for layer, _, why in lines}


def _say(descriptor: int, layer: Layer, why: str) -> None:
    os.write(descriptor, f"{layer}\t{' '.join(why.split())}\n".encode())


def _attempt(layer: Layer, say: Say, do: Callable[[], object]) -> bool:
    try:
        do()
    except (OSError, ValueError) as error:
        say(layer, str(error) or type(error).__name__)
        return False
    say(layer, "")
    return True


def _namespaces(machine: Machine, folders: Sequence[root.Folder], say: Say) -> None:
    owner = (os.geteuid(), os.getegid())
    is_root = owner[0] == 0
    try:
        if is_root and not privileges.has(privileges.SYS_ADMIN):
            namespaces.enter_as_root()
        child = forks.fork(machine, namespaces.PIDS | (0 if is_root else namespaces.USER))
    except OSError as error:
        for layer in (Layer.PIDS, Layer.NAMESPACES, Layer.ROOT):
            say(layer, f"refused: {error.strerror or error}")
        return
    if child:
        os.waitpid(child, 0)
        return
    say(Layer.PIDS, "")
    if not is_root and not _attempt(Layer.NAMESPACES, say, lambda: namespaces.map_self(*owner)):
        return
    if _attempt(Layer.NAMESPACES, say, lambda: namespaces.isolate(with_mounts=True)):
        _attempt(Layer.ROOT, say, lambda: root.pivot(machine, folders, _TEMP_BYTES, owner))


def _seccomp(machine: Machine, say: Say) -> None:
    def refuse_sockets() -> None:
        privileges.drop()
        program = seccomp.assemble(seccomp.worker_rules(with_threads=True), machine)
        seccomp.install(program.of_process(os.getpid()), machine)
        with suppress(PermissionError):
            socket.socket().close()
            raise OSError("the filter was taken and has no effect")

    _attempt(Layer.SECCOMP, say, refuse_sockets)


def _landlock(machine: Machine, say: Say) -> None:
    def refuse_files() -> None:
        privileges.drop()
        landlock.restrict(machine, [], [])
        with suppress(PermissionError):
            os.listdir("/")  # noqa: PTH208 -- iterdir would wait for its first entry to be asked
            raise OSError("the rules were taken and have no effect")

    _attempt(Layer.LANDLOCK, say, refuse_files)


def _user(folders: Sequence[root.Folder], say: Say) -> None:
    def change() -> None:
        if os.geteuid() != 0:
            raise OSError("the node is not root: workers have its user")
        if lacking := [name for name, number in _FOR_UIDS.items() if not privileges.has(number)]:
            raise OSError(f"root lacks the capabilities {', '.join(lacking)}")
        privileges.become(_NOBODY)
        for folder in folders:
            if not os.access(folder.path, os.R_OK | os.X_OK):
                raise OSError(f"a folder above {folder.path} is closed to other users")

    _attempt(Layer.USER, say, change)
