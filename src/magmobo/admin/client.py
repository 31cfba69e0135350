"""How `mag` and others on this machine talk to a running node.

One connection per question, blocking; where a loop runs, `asyncio.to_thread` is the way. Every failure is coded: no
node (exit 3), denied (6), too slow (7), or the node's own error with its own code.
Boundary: the standard library alone, because `mag kernel:status` is mostly what it imports: asyncio and msgspec would
cost more than the question.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from magmobo.admin.address import socket_address
from magmobo.admin.data_folder import DataFolder
from magmobo.admin.errors import AccessDenied, ControlConnectionLost, NodeNotRunning, NodeRefused
from magmobo.contracts.errors import DeadlineExceeded

MAX_ANSWER_BYTES = 8_388_608
_CHUNK_BYTES = 65_536
_GRACE_S = 0.5  # the node's own word on a deadline says more than ours
_RETRY_S = 0.01
_NOBODY = {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}
_DENIED = {errno.EACCES, errno.EPERM}


class AdminClient:
    """Asks the node of `folder`. Every call has `timeout_s` seconds.

    `role` lowers what this caller may do, `justification` is the reason for doing more (break-glass).
    Every call raises NodeNotRunning, AccessDenied, ControlConnectionLost, DeadlineExceeded, or NodeRefused with the
    node's own error.
    """

    def __init__(self, folder: DataFolder, *, timeout_s: float = 10.0, role: str = "", justification: str = "") -> None:
        self._folder, self._timeout_s = folder, timeout_s
        named = {"role": role, "justification": justification}
        self._caller = {name: value for name, value in named.items() if value}

    def ask(
        self, command: str, params: Mapping[str, Any] | None = None, *, dry_run: bool = False, wait_s: float = 0.0
    ) -> dict[str, Any]:
        """The reply of one command, as JSON has it. `wait_s` is what the command itself may take on top."""
        with self._connection(command, wait_s) as connection:
            return connection.ask(command, params or {}, dry_run=dry_run)

    def status(self) -> dict[str, Any]:
        """The fields of `contracts.planes.NodeStatus`."""
        return self.ask("kernel:status")

    def stop(self) -> dict[str, Any]:
        """Make the node drain and end; returns once its data folder is free again. The fields of `Stopping`."""
        with self._connection("node:stop", 0.0) as connection:
            stopping = connection.ask("node:stop", {}, dry_run=False)
            connection.wait_for_the_end()
            return stopping

    @contextmanager
    def _connection(self, what: str, wait_s: float) -> Iterator[_Connection]:
        timeout_s = self._timeout_s + wait_s
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection = _Connection(stream, self._caller, timeout_s)
            with socket_address(self._folder.control_socket) as address:
                connection.open(address)
            yield connection
        except TimeoutError as error:
            raise DeadlineExceeded(f"`{what}` of the node", timeout_s) from error
        except OSError as error:
            if error.errno in _NOBODY:
                raise NodeNotRunning(self._folder.path) from error
            if error.errno in _DENIED:
                raise AccessDenied(f"the control socket in {self._folder.path}") from error
            raise ControlConnectionLost(error.strerror or type(error).__name__) from error
        finally:
            stream.close()


class _Connection:
    """One conversation under one deadline. Raises: TimeoutError, OSError, ControlConnectionLost, NodeRefused."""

    def __init__(self, stream: socket.socket, caller: Mapping[str, str], timeout_s: float) -> None:
        self._stream, self._caller, self._timeout_s = stream, caller, timeout_s
        self._deadline_s = time.monotonic() + timeout_s + _GRACE_S

    def open(self, address: str) -> None:
        while True:
            self._stream.settimeout(self._left_s())
            try:
                self._stream.connect(address)
            except BlockingIOError:  # the queue of the listening socket is full: a Unix socket does not wait by itself
                time.sleep(_RETRY_S)
            else:
                return

    def ask(self, command: str, params: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
        request = {"command": command, "params": params, "timeout_s": self._timeout_s, **self._caller}
        if dry_run:
            request["dry_run"] = True
        self._stream.settimeout(self._left_s())
        # A node that refuses the connection answers and hangs up, maybe before it has read anything.
        with suppress(BrokenPipeError):
            self._stream.sendall(json.dumps(request).encode() + b"\n")
        return _result_of(self._line())

    def wait_for_the_end(self) -> None:
        """The node hangs up when it is gone, and the system does when it dies."""
        with suppress(ConnectionError):
            while self._receive():
                pass

    def _line(self) -> bytes:
        parts: list[bytes] = []
        size_bytes = 0
        while part := self._receive():
            head, end, _ = part.partition(b"\n")
            parts.append(head)
            if end:
                return b"".join(parts)
            size_bytes += len(part)
            if size_bytes > MAX_ANSWER_BYTES:
                raise ControlConnectionLost("its answer is larger than any answer is")
        raise ControlConnectionLost("the connection ended before the answer")

    def _receive(self) -> bytes:
        self._stream.settimeout(self._left_s())
        return self._stream.recv(_CHUNK_BYTES)

    def _left_s(self) -> float:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


def _result_of(line: bytes) -> dict[str, Any]:
    """Raises: NodeRefused with what the node said, ControlConnectionLost for anything that is not an answer."""
    try:
        answer = json.loads(line)
        fault, result = answer.get("error"), answer.get("result")
        if fault is None and isinstance(result, dict):
            return result
        code, text, next_step = (str(fault[name]) for name in ("code", "text", "next_step"))
        raise NodeRefused(code, text, next_step, int(fault["exit_code"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ControlConnectionLost("its answer is not one we understand") from error
