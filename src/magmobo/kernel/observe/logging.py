"""Log lines of the whole process: structlog and stdlib logging, one JSON object a line, UTC, no secrets.

What Python itself would print to stderr (errors of threads, of finalizers, warnings) becomes a line as well.

Every line carries `time`, `level`, `event`, `instance_id`, and where it is known `component` and `correlation_id`. The
line is made where it is logged and written by a thread, so logging costs the loop microseconds, whatever the disk does.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec
import structlog

from magmobo.kernel.observe.writer import FileTarget, LineWriter, StreamTarget
from magmobo.kernel.redact import redact

Level = Literal["debug", "info", "warning", "error"]
LineFormat = Literal["auto", "json", "pretty"]
LEVELS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SEVERITY: dict[str, int] = {name: LEVELS[name] for name in LEVELS} | {"warn": 30, "critical": 50, "msg": 20}
_ORDER = ("time", "level", "event", "component", "correlation_id")
# These speak for themselves below warning: one line per request or connection is telemetry, not log.
_QUIET = ("uvicorn.access", "asyncio", "psycopg", "websockets")


@contextmanager
def bind_correlation(correlation_id: str) -> Iterator[None]:
    """Put `correlation_id` on every line logged inside, also by tasks started inside.

    Components reach the same through `structlog.contextvars.bind_contextvars(correlation_id=…)`.
    """
    with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
        yield


class LogOutput:
    """The sinks of one process. Made by `configure_logging`; `close` flushes and gives logging back as it was."""

    def __init__(
        self,
        *,
        instance_id: str,
        writers: list[tuple[LineWriter, bool]],
        stream_writers: Sequence[tuple[LineWriter, bool]] = (),
        mask: Callable[[Any], Any] = redact,
    ) -> None:
        self._instance_id, self._mask = instance_id, mask
        self._writers, self._lasting = [*writers, *stream_writers], len(writers)
        self._level = LEVELS["debug"]
        self._pretty = structlog.dev.ConsoleRenderer(colors=True)
        self._before: tuple[list[logging.Handler], int] | None = None

    def write(self, event: Mapping[str, Any]) -> None:
        """Write one event everywhere. Never raises."""
        fields = {"instance_id": self._instance_id, **event}
        safe: dict[str, Any] = self._mask({key: fields[key] for key in _ORDER if key in fields} | fields)
        line = _json_line(safe)
        for writer, is_pretty in self._writers:
            writer.put(self._pretty_line(safe) if is_pretty else line)

    def _pretty_line(self, event: Mapping[str, Any]) -> bytes:
        shown = {key: _printable(value) for key, value in event.items() if key != "instance_id"}
        shown["timestamp"] = str(shown.pop("time", ""))[11:23]
        return f"{self._pretty(None, '', shown)}\n".encode(errors="replace")

    # structlog calls the method named like the level
    def _log(self, event: Mapping[str, Any]) -> None:
        self.write(event)

    debug = info = warning = warn = error = critical = exception = fatal = msg = log = _log

    def _filtered(self, _: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """First of the processors, because loggers are made once and the level may change after it."""
        if _SEVERITY.get(method, logging.ERROR) < self._level:
            raise structlog.DropEvent
        return event

    def install(self, level: Level) -> None:
        """Make structlog and stdlib logging of this process write here."""
        structlog.configure(
            processors=[
                self._filtered,
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                structlog.processors.format_exc_info,
                _as_argument,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS["debug"]),
            logger_factory=lambda *_: self,
            cache_logger_on_first_use=False,
        )
        root = logging.getLogger()
        self._before = (root.handlers[:], root.level)
        root.handlers[:] = [_Bridge(self)]
        self.set_level(level)
        logging.captureWarnings(True)
        threading.excepthook = _thread_failed
        sys.unraisablehook = _not_raised

    def set_level(self, level: Level) -> None:
        """Write lines of this level and above from now on, also of loggers that were made before."""
        self._level = LEVELS[level]
        logging.getLogger().setLevel(LEVELS[level])
        for name in _QUIET:
            logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))

    def set_stream(self, stream: TextIO | None, format: LineFormat) -> None:
        """Write to this stream too from now on, or to none, instead of to the one before."""
        keeps, ends = self._writers[: self._lasting], self._writers[self._lasting :]
        self._writers = keeps + _stream_writers(stream, format)
        for writer, _ in ends:  # it may wait for a reader that is slow, which the loop must not
            threading.Thread(target=writer.close, name="mag-log-end", daemon=True).start()

    def close(self) -> None:
        """Write what waits, release files, undo `install`. Calling it twice is fine."""
        if self._before is not None:
            root = logging.getLogger()
            root.handlers[:], level = self._before
            root.setLevel(level)
            for name in _QUIET:
                logging.getLogger(name).setLevel(logging.NOTSET)
            logging.captureWarnings(False)
            threading.excepthook, sys.unraisablehook = threading.__excepthook__, sys.__unraisablehook__
            structlog.reset_defaults()
            self._before = None
        for writer, _ in self._writers:
            writer.close()
        self._writers = []


class _Bridge(logging.Handler):
    """Gives lines of libraries that use stdlib logging the same shape."""

    def __init__(self, output: LogOutput) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        event: MutableMapping[str, Any] = {
            "event": _message(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if record.exc_info:
            event["exc_info"] = record.exc_info
        structlog.contextvars.merge_contextvars(None, "", event)
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")(None, "", event)
        self._output.write(structlog.processors.format_exc_info(None, "", event))


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is SystemExit:
        return
    name = failure.thread.name if failure.thread is not None else ""
    raised = failure.exc_value or failure.exc_type()
    logging.getLogger("threading").error("a thread ended with an error: %s", name, exc_info=raised)


def _not_raised(failure: sys.UnraisableHookArgs) -> None:
    raised = failure.exc_value or failure.exc_type()
    said = failure.err_msg or "an error was ignored in"
    logging.getLogger("python").error("%s %s", said, _named(failure.object), exc_info=raised)


def _named(value: object) -> str:
    """Not `repr`, which may be what fails."""
    return getattr(value, "__qualname__", None) or type(value).__name__


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a library's format string and arguments do not fit
        return f"{record.msg} {record.args!r}"


def configure_logging(
    *,
    level: Level,
    format: LineFormat,
    instance_id: str,
    file: Path | None = None,
    stream: TextIO | None = None,
    mask: Callable[[Any], Any] = redact,
) -> LogOutput:
    """Send the process's log to `file` (always JSON) and to `stream`, usually stderr; either may be None.

    mask: gives a copy of a line without its secrets; by default without what looks like one.
    Raises: OSError when the file cannot be opened; nothing is changed then.
    """
    writers = [] if file is None else [(LineWriter(FileTarget(file)), False)]
    output = LogOutput(
        instance_id=instance_id, writers=writers, stream_writers=_stream_writers(stream, format), mask=mask
    )
    output.install(level)
    return output


def _stream_writers(stream: TextIO | None, format: LineFormat) -> list[tuple[LineWriter, bool]]:
    if stream is None:
        return []
    is_pretty = format == "pretty" or (format == "auto" and stream.isatty())
    return [(LineWriter(StreamTarget(stream)), is_pretty)]


def _as_argument(logger: object, method: str, event: MutableMapping[str, Any]) -> tuple[tuple[Any], dict[str, Any]]:
    return (event,), {}


def _printable(value: Any) -> Any:
    """Text that cannot drive a terminal; a traceback keeps its lines."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(char if char.isprintable() or char == "\n" else " " for char in value)


def _json_line(event: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(event) + b"\n"
    except (UnicodeEncodeError, msgspec.MsgspecError, ValueError):  # half a surrogate pair, not-a-number
        return json.dumps(event, default=str).encode() + b"\n"
