"""The main of a worker: one socket to the node, the author's module, and a loop that runs until the node says so.

Whoever calls `run` has applied every limit before; nothing of the extension is imported until the node's first frame.
Boundary: moves bytes and loads the module; the rules are `session.py`'s. The socket is read and written directly, with
one write for all frames of a loop turn. Invariant: the end of the socket is the end of the worker.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from io import TextIOBase
from pathlib import Path

from magx import wire
from magx.loading import load
from magx.session import Session
from magx.spin import Spin
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
_PAGE_BYTES, _DONT_NEED = os.sysconf("SC_PAGE_SIZE"), 4
_ZEROS = bytes(_PAGE_BYTES)
_madvise = ctypes.PyDLL(None).madvise if sys.platform == "linux" else None
if _madvise:
    _madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
_REHEARSALS = 10  # Python makes code faster when it runs for the eighth time


def run(fd: int) -> None:
    """Serve the node at this descriptor; returns when the node stopped the worker or is gone.

    The loop is left as it is, with whatever the author's code still has in it: the process is to end at once.
    Raises: SystemExit(DID_NOT_LOAD).
    """
    sys.dont_write_bytecode = True
    loop = _new_loop()
    _give_back_zeros(loop)
    asyncio.set_event_loop(loop)
    worker = _Worker(fd, loop)
    while not worker.is_over:
        try:
            loop.run_forever()
        except BaseException as error:  # a task of the author's that raised SystemExit
            worker.say_error("a task of the extension raised", error)
    if worker.did_not_load:
        raise SystemExit(DID_NOT_LOAD)


def _give_back_zeros(loop: asyncio.AbstractEventLoop) -> None:
    """Give the system the pages of the loop that hold zeros only; written to, they come back as zeros. uvloop's has 250
    KiB of them, for sockets that it reads itself: most workers have none.
    """
    if _madvise is None:
        return
    first, end = -(-id(loop) // _PAGE_BYTES) * _PAGE_BYTES, id(loop) + loop.__sizeof__()
    pages = range(first, end - _PAGE_BYTES + 1, _PAGE_BYTES)
    empty = [page for page in pages if ctypes.string_at(page, _PAGE_BYTES) == _ZEROS]
    if empty and empty[-1] - empty[0] == (len(empty) - 1) * _PAGE_BYTES:  # in one piece: one call is much less work
        _madvise(empty[0], len(empty) * _PAGE_BYTES, _DONT_NEED)


def rehearse() -> None:
    """Play some short lives of a worker, for whoever forks workers off this process. What Python writes down meanwhile
    (faster code, found attributes, what is made when it is first used) is shared by all of them then, and saves each
    450 KiB of memory of its own. Of this process nothing else is changed, and no loop is left.
    """
    kept_path, kept_output = sys.path[:], (sys.stdout, sys.stderr)
    kept_handlers, kept_level = logging.root.handlers[:], logging.root.level
    try:
        with closing(asyncio.new_event_loop()) as loop:  # not uvloop's: of that, signals do not outlive a fork
            asyncio.set_event_loop(loop)
            for _ in range(_REHEARSALS):
                _play(loop)
                sys.modules.pop("rehearsed", None)
    finally:
        asyncio.set_event_loop(None)
        sys.path[:] = kept_path
        sys.stdout, sys.stderr = kept_output
        logging.root.handlers[:] = kept_handlers
        logging.root.setLevel(kept_level)
        gc.unfreeze()


def _play(loop: asyncio.AbstractEventLoop) -> None:
    data = wire.raw({"query": "", "path": "/state", "method": "GET", "arguments": {"n": 1}})
    item = wire.Item("e", "extension.rehearsed", 0.0, 1, data)
    frames = [
        wire.Start(wire.PROTOCOL, "rehearsed", "1.0.0", "rehearsed:ext", str(Path(__file__).parent), "", {}, []),
        wire.Call(1, "hook:api.before_request", 1000, data),
        wire.Call(2, "endpoint:GET /state", 1000, data),
        wire.Call(3, "command:sum", 1000, data),
        wire.Call(4, "health", 1000, data),
        wire.Deliver(5, "seen", 1000, [item]),
        wire.Ping(6),
        wire.Stop(1000),
    ]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(map(wire.encode, frames)))
        _Worker(theirs.fileno(), loop)
        loop.run_forever()


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
        self._spin = Spin(loop)
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
        self._spin.came()
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
        if len(out) == 1:  # who asks one thing after the other asks again at once
            self._spin.expect()
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
