"""The node's end of the zygote's socket: asks for workers, and hears how they fare.

Invariant: a descriptor that arrives belongs to a worker that is being born or lives, or is closed; when the zygote
ends, so does every worker of it, and every birth fails.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from magmobo.extensions.sandbox import control, seccomp, tiers
from magmobo.extensions.sandbox.children import send_signal
from magmobo.extensions.sandbox.errors import SandboxFailed, ZygoteFailed
from magmobo.extensions.sandbox.kinds import Layer
from magmobo.extensions.sandbox.root import TEMP
from magmobo.extensions.sandbox.worker import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    import structlog

_MAIN = (
    "import sys; standard = list(sys.path); sys.path += sys.argv[4:]; "
    "from magmobo.extensions.sandbox.zygote import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], standard)"
)
_ENVIRONMENT = {
    "UV_USE_IO_URING": "0",  # which libuv would try, and be refused
    "MALLOC_ARENA_MAX": "2",  # each reserves 64 MiB of the address space that is limited
    "TMPDIR": TEMP,
}


class _Birth:
    """A worker on its way: complete when its process is known and every layer is around it."""

    def __init__(self, spec: WorkerSpec, node_end: socket.socket) -> None:
        self.spec, self.node_end = spec, node_end
        self.pid = self.pidfd = self.listener = -1
        self.is_ready = self.is_unwanted = False
        self.worker: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()

    @property
    def living(self) -> WorkerProcess | None:
        """The worker, once it is complete and somebody has it."""
        is_born = self.worker.done() and not self.worker.cancelled() and not self.worker.exception()
        return self.worker.result() if is_born else None

    def end(self) -> None:
        """SIGKILL, to this very process and no other of its number."""
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def fail(self, error: Exception) -> None:
        if not self.worker.done():
            self.worker.set_exception(error)


class Line:
    """One zygote, while it lives."""

    def __init__(
        self, log: structlog.stdlib.BoundLogger, process: asyncio.subprocess.Process, ours: socket.socket
    ) -> None:
        self._log, self._process, self._socket = log, process, ours
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._births: dict[int, _Birth] = {}
        self._hello: asyncio.Future[control.Hello] = self._loop.create_future()
        self.is_over = self.is_root = False
        self.tiers = tiers.judge([])
        self._last_words = ""
        self._said = asyncio.create_task(self._hear_words(), name="zygote's words")
        self._loop.add_reader(ours.fileno(), self._on_readable)

    @classmethod
    async def open(
        cls, log: structlog.stdlib.BoundLogger, python: str, runtime: str, paths: Sequence[str], timeout_s: float
    ) -> Line:
        """Start a zygote and wait for what it found. Raises: ZygoteFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    python, "-I", "-S", "-B", "-X", "utf8", "-c", _MAIN,
                    str(theirs.fileno()), str(os.getpid()), runtime, *paths,
                    env=_ENVIRONMENT, pass_fds=[theirs.fileno()], start_new_session=True, cwd="/",
                    stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
                )  # fmt: skip
            except OSError as error:
                ours.close()
                raise ZygoteFailed(str(error)) from error
            except BaseException:
                ours.close()
                raise
        line = cls(log, process, ours)
        try:
            async with asyncio.timeout(timeout_s):
                hello = await line._hello
        except BaseException as error:
            await line.close(timeout_s)
            if isinstance(error, TimeoutError):
                raise ZygoteFailed(f"the zygote said nothing for {timeout_s:g} s {line._last_words}") from error
            raise
        line.tiers, line.is_root = tiers.judge(hello.findings), hello.uid == 0
        return line

    async def spawn(self, spec: WorkerSpec, layers: frozenset[Layer], timeout_s: float) -> WorkerProcess:
        """A worker with these layers around it. Raises: SandboxFailed, ZygoteFailed."""
        node_end, worker_end = socket.socketpair()
        node_end.setblocking(False)
        self._number += 1
        number, birth = self._number, _Birth(spec, node_end)
        self._births[number] = birth
        try:
            with worker_end:
                self._ask(number, spec, layers, worker_end)
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(birth.worker)
        except BaseException as error:
            node_end.close()
            birth.is_unwanted = True
            birth.end()
            birth.worker.cancel()
            if isinstance(error, TimeoutError):
                raise ZygoteFailed(f"no worker came within {timeout_s:g} s") from error
            raise

    def _ask(self, number: int, spec: WorkerSpec, layers: frozenset[Layer], worker_end: socket.socket) -> None:
        asked = control.Spawn(
            number, str(spec.code_dir.absolute()), str(spec.data_dir.absolute()) if spec.data_dir else None,
            spec.memory_bytes, spec.data_bytes, spec.temp_bytes, spec.uid, sorted(layers),
        )  # fmt: skip
        try:
            socket.send_fds(self._socket, [control.encode(asked)], [worker_end.fileno()])
        except OSError as error:
            del self._births[number]
            raise ZygoteFailed(f"the zygote does not listen: {error.strerror}") from error

    async def close(self, timeout_s: float) -> None:
        """End the zygote, and every worker with it."""
        self._lose("the node stops")
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            send_signal(self._process, signal.SIGKILL)
            await self._process.wait()
        await asyncio.gather(self._said, return_exceptions=True)

    # ------------------------------------------------------------ what the zygote says

    async def _hear_words(self) -> None:
        """What it writes where errors go, which is of our own code: into the log."""
        stream = self._process.stderr
        while stream and (line := await stream.readline()):
            self._last_words = line.decode(errors="replace").strip()[:500]
            self._log.warning("the zygote of extensions says", line=self._last_words)

    def _on_readable(self) -> None:
        while not self.is_over:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._socket, control.MAX_BYTES, 1, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._lose("the zygote ended")
                return
            try:
                self._take(control.decode_answer(data), descriptors[0] if descriptors else -1)
            except msgspec.MsgspecError:
                self._lose("the zygote is of another version")

    def _take(self, answer: control.Answer, descriptor: int) -> None:
        if isinstance(answer, control.Hello):
            self._hello.set_result(answer)
            return
        birth = self._births[answer.number]
        match answer:
            case control.Forked():
                birth.pid, birth.pidfd = answer.pid, descriptor
                if birth.is_unwanted:
                    birth.end()
            case control.Listening():
                birth.listener = descriptor
                self._loop.add_reader(descriptor, self._on_forbidden, birth)
            case control.Ready():
                birth.is_ready = True
            case control.Refused():
                birth.fail(SandboxFailed(birth.spec.extension_id, answer.layer, answer.reason))
            case control.NotForked():
                del self._births[answer.number]
                birth.fail(SandboxFailed(birth.spec.extension_id, answer.layer, answer.reason))
            case control.Ended():
                self._take_end(birth, answer)
                return
        if birth.is_ready and birth.pidfd >= 0 and not birth.worker.done():
            birth.worker.set_result(WorkerProcess(birth.spec, birth.pid, birth.node_end, birth.end))

    def _take_end(self, birth: _Birth, ended: control.Ended) -> None:
        del self._births[ended.number]
        forbidden = "it asked for a forbidden system call" if ended.signal == signal.SIGSYS else ""
        reason = "it ran out of memory" if ended.ran_out_of_memory else ""
        how = f"signal {ended.signal}" if ended.signal else f"status {ended.code}"
        birth.fail(
            SandboxFailed(birth.spec.extension_id, "sandbox", f"the process ended by {how} before it was complete")
        )
        self._finish(birth, ended.code, ended.signal, forbidden, reason)

    def _finish(self, birth: _Birth, code: int | None, number: int | None, escape: str, reason: str) -> None:
        if living := birth.living:
            living.has_ended(code, number, escape=escape, reason=reason)
        self._stop_listening(birth)
        if birth.pidfd >= 0:
            os.close(birth.pidfd)
            birth.pidfd = -1

    def _on_forbidden(self, birth: _Birth) -> None:
        """The worker waits in a call that no honest one makes, and does not return from it."""
        poll = select.poll()
        poll.register(birth.listener, select.POLLIN)
        if not any(events & select.POLLIN for _, events in poll.poll(0)):  # it has ended; reading would wait for good
            self._stop_listening(birth)
            return
        with suppress(FileNotFoundError):  # a signal took it out of the call
            call = seccomp.heard(birth.listener)
            if living := birth.living:
                living.kill_for_escape(f"it asked for the system call {call}")
            else:
                birth.end()

    def _stop_listening(self, birth: _Birth) -> None:
        if birth.listener >= 0:
            self._loop.remove_reader(birth.listener)
            os.close(birth.listener)
            birth.listener = -1

    def _lose(self, reason: str) -> None:
        """The zygote is gone or is to go: so are its workers."""
        if self.is_over:
            return
        self.is_over = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if not self._hello.done():
            self._hello.set_exception(ZygoteFailed(f"{reason} {self._last_words}".strip()))
            self._hello.exception()
        for birth in self._births.values():
            birth.end()
            birth.fail(ZygoteFailed(reason))
            self._finish(birth, None, signal.SIGKILL, "", reason)
        self._births.clear()
