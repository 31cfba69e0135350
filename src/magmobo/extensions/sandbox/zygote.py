"""The process that workers are forked from: exec'ed with an empty environment, so there is no secret in it to inherit.

It has one thread, one socket to the node (`control.py`), and everything that workers share already imported. Invariant:
it never runs code of an extension; a child of it does only when every layer that was asked for is around it. It ends
when the node's end of the socket closes, and its children with it.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from magmobo.extensions.sandbox import control, forks, imports, layers, privileges, seccomp, trials
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.layers import LayerFailed, Plan
from magmobo.extensions.sandbox.root import Folder

Run = Callable[[int], None]


def main(control_fd: int, node_pid: int, runtime: str, standard: list[str]) -> NoReturn:
    """Serve the node at this descriptor, until it is gone. `standard` is the import path of the standard library."""
    gc.disable()  # a collection would touch, and so copy, what children share
    os.umask(0o077)
    privileges.end_with_parent()
    if os.getppid() != node_pid:
        os._exit(1)
    module = imports.load(runtime)
    run: Run = getattr(module, runtime.partition(":")[2])
    zygote = _Zygote(socket.socket(fileno=control_fd), imports.folders(standard))
    if rehearse := getattr(module, "rehearse", None):
        rehearse()
    _settle()
    imports.forget(standard)
    gc.collect()
    gc.freeze()
    try:
        spawned = zygote.serve()
    except ConnectionError:  # the node went while it was told something
        spawned = None
    if spawned is None:
        zygote.end_children()
        os._exit(0)
    del zygote
    _work(spawned, run)


class _Spawned:
    """In a child: what it is to become."""

    def __init__(self, plan: Plan, worker_fd: int, control_socket: socket.socket) -> None:
        self.plan, self.worker_fd, self.control = plan, worker_fd, control_socket


class _Zygote:
    def __init__(self, control_socket: socket.socket, folders: list[Folder]) -> None:
        self._control, self._folders = control_socket, folders
        self._children: dict[int, tuple[int, int]] = {}
        """By pidfd: the number of the spawn, the pid."""
        self._groups = trials.groups()

    def serve(self) -> _Spawned | None:
        """Fork what is asked for. Returns: None when the node is gone; in a child, what it is to become."""
        tried = trials.run(self._folders, self._groups)
        trials.enter_namespaces(tried)
        self._machine, self._programs = tried.machine, seccomp.programs(tried.machine)
        self._say(control.Hello(0, tried.findings, os.geteuid()))
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor in self._children:
                    poll.unregister(descriptor)
                    self._reap(descriptor)
                    continue
                asked = self._receive()
                if asked is None:
                    return None
                forked = self._fork(*asked)
                if isinstance(forked, _Spawned):
                    return forked
                if forked is not None:
                    poll.register(forked, select.POLLIN)

    def _say(self, message: control.Message, *descriptors: int) -> None:
        socket.send_fds(self._control, [control.encode(message)], list(descriptors))

    def _receive(self) -> tuple[control.Spawn, int] | None:
        data, descriptors, _, _ = socket.recv_fds(self._control, control.MAX_BYTES, 1)
        if not data or not descriptors:
            return None
        return control.decode_question(data), descriptors[0]

    def _fork(self, asked: control.Spawn, worker_fd: int) -> _Spawned | int | None:
        """Returns: in a child what it is to become; else the child's pidfd, or None when there is none."""
        plan = self._plan(asked)
        layer = Layer.CGROUP
        try:
            if layer in plan.layers and self._groups:
                self._groups.make(plan.number, plan.memory_bytes)
            layer = Layer.PIDS
            pid = forks.fork(self._machine, plan.fork_flags)
        except OSError as error:
            os.close(worker_fd)
            self._say(control.NotForked(asked.number, layer, str(error)))
            return None
        if not pid:
            return _Spawned(plan, worker_fd, self._control)
        os.close(worker_fd)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (asked.number, pid)
        self._say(control.Forked(asked.number, pid), pidfd)
        return pidfd

    def _plan(self, asked: control.Spawn) -> Plan:
        folders = [*self._folders, Folder(asked.code_dir, os.path.realpath(asked.code_dir))]
        if asked.data_dir is not None:
            folders.append(Folder(asked.data_dir, os.path.realpath(asked.data_dir), is_writable=True))
        return Plan(
            number=asked.number,
            layers=frozenset(map(Layer, asked.layers)),
            folders=folders,
            memory_bytes=asked.memory_bytes,
            file_bytes=max(asked.data_bytes, asked.temp_bytes),
            temp_bytes=asked.temp_bytes,
            owner=(os.geteuid(), os.getegid()),
            uid=asked.uid,
            machine=self._machine,
            programs=self._programs,
            groups=self._groups,
        )

    def end_children(self) -> None:
        """End all of them, and leave no group behind. They would end with us, but after us."""
        for pidfd in list(self._children):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self._take_down(pidfd)

    def _take_down(self, pidfd: int) -> tuple[int, int, bool]:
        """Wait for a child. Returns: the number of its spawn, its status, whether it ran out of memory."""
        number, pid = self._children.pop(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        ran_out = self._groups.remove(number) if self._groups else False
        return number, os.waitstatus_to_exitcode(status), ran_out

    def _reap(self, pidfd: int) -> None:
        number, code, ran_out = self._take_down(pidfd)
        self._say(control.Ended(number, code if code >= 0 else None, -code if code < 0 else None, ran_out))


def _work(spawned: _Spawned, run: Run) -> NoReturn:
    """Become the worker. The process ends in here, whatever happens."""
    status = 1
    try:
        plan, worker_fd = spawned.plan, spawned.worker_fd
        _surround(spawned)
        del spawned
        if Layer.ROOT not in plan.layers:
            _choose_temp(plan)
        del plan
        gc.enable()
        run(worker_fd)
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    finally:
        os._exit(status)


def _surround(spawned: _Spawned) -> None:
    """Close what is not the worker's, apply the layers, tell the node. Raises: SystemExit when one cannot be."""
    number, said = spawned.plan.number, spawned.control
    os.dup2(1, 2)  # what the zygote says goes to the node's log
    _close_all_but({0, 1, 2, spawned.worker_fd, said.fileno()})

    def hand_over(listener: int) -> None:
        socket.send_fds(said, [control.encode(control.Listening(number))], [listener])

    try:
        layers.apply(spawned.plan, hand_over)
    except Exception as error:
        failed = error if isinstance(error, LayerFailed) else LayerFailed("sandbox", f"{type(error).__name__}: {error}")
        said.send(control.encode(control.Refused(number, failed.layer, failed.reason)))
        raise SystemExit(1) from error
    said.send(control.encode(control.Ready(number)))
    said.close()


def _close_all_but(kept: set[int]) -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    start = 0
    for descriptor in [*sorted(kept), most]:
        if start < descriptor:  # an empty range would be taken for an endless one
            os.closerange(start, descriptor)
        start = descriptor + 1


def _choose_temp(plan: Plan) -> None:
    """Without a root of its own, /tmp is not the worker's."""
    for folder in plan.folders:
        if folder.is_writable:
            os.environ["TMPDIR"] = folder.path


def _settle() -> None:
    """Make Python's own state that of a worker; done here and not in each, for the memory of it."""
    sys.argv[:] = ["worker"]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
