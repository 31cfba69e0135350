"""Starts a node in a session of its own and hears over a pipe what came of it.

Boundary: no state is shared with the child but its arguments and one pipe. A password never becomes an argument of a
process that lives on: the DSN travels in the environment.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

from magmobo.cli.errors import BackgroundStartFailed
from magmobo.contracts.errors import DeadlineExceeded
from magmobo.node.report import Ready, Report
from magmobo.node.settings import NodeOptions

_DRAIN_S = 30.0


def start_in_background(options: NodeOptions, timeout_s: float) -> Ready:
    """Spawn the node and wait until it is ready; it goes on after this process ends.

    Raises: NodeRefused with the node's own error, BackgroundStartFailed, DeadlineExceeded. The child is gone then, as
    it is when the wait is interrupted.
    """
    read_end, write_end = os.pipe()
    try:
        child = subprocess.Popen(
            # -P: with -m alone, Python would import whatever module of the right name lies in the working folder
            [sys.executable, "-P", "-m", "magmobo.cli.main", "up", *_arguments(options), "--report-to", str(write_end)],
            cwd=options.working_dir, env=_environment(options), pass_fds=[write_end], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        os.close(write_end)
    try:
        line = _read_line(read_end, timeout_s)
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(read_end)
    if not line:
        raise BackgroundStartFailed(child.wait())
    report = Report.decode(line)
    if report.ready is None:
        child.wait()
        raise report.fault.as_error() if report.fault else BackgroundStartFailed(child.returncode)
    return report.ready


def _read_line(descriptor: int, timeout_s: float) -> bytes:
    """Everything up to the end of the pipe: the child writes one line and closes it."""
    parts: list[bytes] = []
    deadline_s = time.monotonic() + timeout_s
    while select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
        part = os.read(descriptor, 65_536)
        if not part:
            return b"".join(parts)
        parts.append(part)
    raise DeadlineExceeded("the start of the node", timeout_s)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Drain the child, or kill it when it takes too long."""
    child.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_DRAIN_S)
        return
    child.kill()
    child.wait()


def _arguments(options: NodeOptions) -> list[str]:
    pairs = {
        "--data-dir": options.data_dir,
        "--demo": options.demo,
        "--speed": options.speed,
        "--host": options.host,
        "--port": options.port,
        "--config": options.config_file,
        "--environment": options.environment,
        "--only": ",".join(options.only) or None,
        "--without": ",".join(options.without) or None,
    }
    given = [text for name, value in pairs.items() if value is not None for text in (name, str(value))]
    flags = {"--safe": options.safe, "--accept-removed": options.accept_removed}
    return [*given, *(name for name, is_set in flags.items() if is_set)]


def _environment(options: NodeOptions) -> dict[str, str]:
    environ = dict(options.environ)
    if options.dsn is not None:
        environ.pop("MAG_MAGDS__DSN_FILE", None)
        environ["MAG_MAGDS__DSN"] = options.dsn
    return environ
