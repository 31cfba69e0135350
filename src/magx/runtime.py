"""The main of a worker: one socket to the node, the author's module, and a loop that runs until the node says so.

Whoever calls `run` has applied every limit before; nothing of the extension is imported until the node's first frame.
Boundary: moves bytes and loads the module; the rules are `session.py`'s. The socket is read and written directly, with
one write for all frames of a loop turn. Invariant: the end of the socket is the end of the worker.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable
from io import TextIOBase

from magx import wire
from magx.loading import load
from magx.session import Session
from magx.texts import MAX_LINE_CHARACTERS, said, trace_of

try:
    import uvloop
except ImportError:  # half the speed, the same behaviour
    _new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_loop = uvloop.new_event_loop

DID_NOT_LOAD = 3
"""Exit status when the author's module could not be loaded; a line of the log says why."""
_READ_BYTES = 65_536  # above 128 KiB each read would map memory anew
_MAX_OFFERED_BYTES = 1_048_576


def run(fd: int) -> None:
    """Serve the node at this descriptor; returns when the node stopped the worker or is gone.

    The loop is left as it is, with whatever the author's code still has in it: the process is to end at once.
    Raises: SystemExit(DID_NOT_LOAD).
    """
    sys.dont_write_bytecode = True
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    worker = _Worker(fd, loop)
    while not worker.is_over:
        try:
            loop.run_forever()
        except BaseException as error:  # a task of the author's that raised SystemExit
            worker.say_error("a task of the extension raised", error)
    if worker.did_not_load:
        raise SystemExit(DID_NOT_LOAD)


class _Worker:
    """Bytes of the socket, and the session behind them."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self.is_over = self.did_not_load = False
        self._fd, self._loop = fd, loop
        self._frames = wire.Frames()
        self._out: list[bytes] = []
        self._waiting = bytearray()
        self._is_flush_due = self._is_ending = False
        self._out_bytes = self._dropped = 0
        self._session = Session(loop, self._send, self._offer, self._end)
        self._take: Callable[[wire.FromNode], None] = self._first
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._on_readable)

    # ------------------------------------------------------------ in

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._stop()
            return
        try:
            for body in self._frames.feed(data):
                self._take(wire.decode_from_node(body))
        except wire.ProtocolFault as fault:  # a node of another version: there is nothing to go on with
            self.say_error("the node does not speak this protocol", fault)
            self._end()
        self._flush_soon()  # behind the first steps of the tasks that these frames began, so it takes their answers

    def _first(self, frame: wire.FromNode) -> None:
        if not isinstance(frame, wire.Start) or frame.protocol != wire.PROTOCOL:
            raise wire.ProtocolFault("the first frame is not a Start of this protocol")
        self._take = self._session.take
        _speak_through(self._session)
        try:
            extension = load(frame.code_dir, frame.entry)
        except BaseException as error:  # whatever a module does when it is imported
            self.did_not_load = True
            self.say_error("the extension did not load", error)
            self._end()
            return
        gc.freeze()  # what is loaded now stays: later collections need not look at it
        self._session.begin(frame, extension)

    def say_error(self, what: str, error: BaseException) -> None:
        """A line of the log about an error that no question of the node can be answered with."""
        self._session.log("error", f"{what}: {type(error).__name__}: {said(error)}", {"trace": trace_of(error)})

    # ------------------------------------------------------------ out

    def _send(self, frame: wire.FromWorker) -> None:
        """Raises: ProtocolFault when it is too large; nothing is sent then."""
        data = wire.encode(frame)
        self._out.append(data)
        self._out_bytes += len(data)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _offer(self, frame: wire.FromWorker) -> None:
        """A frame that is dropped while the node does not read."""
        if len(self._waiting) + self._out_bytes > _MAX_OFFERED_BYTES:
            self._dropped += 1
            return
        if self._dropped:
            lost, self._dropped = self._dropped, 0
            self._session.log("warning", "lines and figures were dropped: the node did not read them", {"count": lost})
        self._send(frame)

    def _flush(self) -> None:
        self._is_flush_due = False
        out, self._out, self._out_bytes = self._out, [], 0
        if self._waiting:
            self._waiting += b"".join(out)
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        written = self._write(data) if data else 0
        if written < len(data):
            self._waiting += data[written:]
            self._loop.add_writer(self._fd, self._on_writable)
        elif self._is_ending:
            self._stop()

    def _on_writable(self) -> None:
        del self._waiting[: self._write(self._waiting)]
        if self._waiting:
            return
        self._loop.remove_writer(self._fd)
        if self._is_ending and not self._is_flush_due:
            self._stop()

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._stop()
            return len(data)

    # ------------------------------------------------------------ the end

    def _end(self) -> None:
        """Stop when everything is written."""
        self._is_ending = True
        if not self._waiting and not self._is_flush_due:
            self._stop()

    def _stop(self) -> None:
        self.is_over = True
        self._loop.remove_reader(self._fd)
        self._loop.stop()


class _Printed(TextIOBase):
    """What the author prints: each line is one of the log."""

    def __init__(self, session: Session, level: str) -> None:
        self._session, self._level, self._line = session, level, ""

    def write(self, text: str) -> int:
        *lines, rest = (self._line + text).split("\n")
        self._line = rest[-MAX_LINE_CHARACTERS:]
        for line in lines:
            self._session.log(self._level, line, {})
        return len(text)


class _Logged(logging.Handler):
    """What the author, or a library, logs the standard way."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[1]:
            fields["trace"] = trace_of(record.exc_info[1])
        self._session.log(level if level in {"debug", "warning", "error"} else "info", record.getMessage(), fields)


def _speak_through(session: Session) -> None:
    sys.stdout, sys.stderr = _Printed(session, "info"), _Printed(session, "warning")
    logging.root.handlers[:] = [_Logged(session)]
    logging.root.setLevel(logging.INFO)
