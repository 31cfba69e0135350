"""Lines are JSON, carry what is needed to find the culprit, hold no secret, and never hold up the caller."""

from __future__ import annotations

import io
import json
import logging
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from magmobo.contracts.secret import Secret
from magmobo.kernel.observe.logging import LogOutput, bind_correlation, configure_logging
from magmobo.kernel.observe.writer import MAX_WAITING, FileTarget, LineWriter
from magmobo.kernel.redact import redact

PLANTED = "hunter2-do-not-show"


@contextmanager
def logging_to(path: Path, **options: Any) -> Iterator[LogOutput]:
    defaults: dict[str, Any] = {"level": "info", "format": "json", "instance_id": "node-1", "file": path}
    output = configure_logging(**defaults | options)
    try:
        yield output
    finally:
        output.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_when_what_who_and_for_which_request(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "mag.log"
    with logging_to(path):
        log = structlog.get_logger().bind(component="magds")
        with bind_correlation("request-7"):
            log.info("pool is up", connections=3)
        log.info("later")
        log.debug("not shown")
    first, second = lines(path)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "event": "pool is up",
        "component": "magds",
        "correlation_id": "request-7",
        "instance_id": "node-1",
        "connections": 3,
    }
    assert "correlation_id" not in second
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_libraries_that_use_stdlib_logging_end_up_in_the_same_place(tmp_path: Path) -> None:
    path = tmp_path / "mag.log"
    before = logging.getLogger().handlers[:]
    with logging_to(path):
        logging.getLogger("library.driver").warning("listening on %s", "postgres://u:hunter2@h/db")
        logging.getLogger("uvicorn.access").info("one line a request")
        try:
            raise LookupError("password=hunter2")
        except LookupError:
            logging.getLogger("library").exception("%d arguments", "wrong")
    first, second = lines(path)
    assert (first["logger"], first["level"], first["event"]) == (
        "library.driver",
        "warning",
        "listening on postgres://u:***@h/db",
    )
    assert "LookupError: password=***" in second["exception"]
    assert "hunter2" not in path.read_text()
    assert logging.getLogger().handlers == before


def test_pretty_lines_go_to_the_terminal_only(tmp_path: Path) -> None:
    stream = io.StringIO()
    with logging_to(tmp_path / "mag.log", format="pretty", stream=stream):
        structlog.get_logger().info("hello", password=PLANTED)
    assert "hello" in stream.getvalue()
    assert PLANTED not in stream.getvalue()
    assert lines(tmp_path / "mag.log")[0]["password"] == "***"
    stream = io.StringIO()
    with logging_to(tmp_path / "mag.log", format="auto", stream=stream):
        structlog.get_logger().info("not a terminal")
    assert json.loads(stream.getvalue())["event"] == "not a terminal"


def test_nothing_that_is_logged_can_break_logging(tmp_path: Path) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    loop: list[Any] = []
    loop.append(loop)
    with logging_to(tmp_path / "mag.log"):
        log = structlog.get_logger()
        log.info(
            "odd values", a=Unprintable(), b="\ud800", c=float("nan"), d=loop, e=b"\xff", f={1: {2, 3}}, g="x" * 99_999
        )
        log.info("new\nline", h=object)
    first, second = lines(tmp_path / "mag.log")
    assert first["event"] == "odd values"
    assert len(first["g"]) < 20_000
    assert second["event"] == "new\nline"


names = st.sampled_from(
    ["password", "PGPASSWORD", "client_secret", "api_key", "Authorization", "token", "dsn", "cookie"]
)
texts = st.sampled_from(
    [
        f"postgres://user:{PLANTED}@host/db?x=1",
        f"host=h password={PLANTED} user=u",
        f"password = '{PLANTED} and more'",
        f"Authorization: Bearer {PLANTED}",
        f"redis://:{PLANTED}@h",
        f'{{"secret": "{PLANTED}"}}',
        f"PGPASSWORD={PLANTED} psql",
        f"password='never closed {PLANTED}",
        f"postgres://user:pa/ss@{PLANTED}@host/db",
    ]
)
planted: st.SearchStrategy[Any] = st.recursive(
    texts | st.builds(Secret, st.just(PLANTED)) | st.dictionaries(names, st.just(PLANTED), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)  # a busy machine is not a failure
@given(planted)
def test_no_secret_survives_redaction(value: Any) -> None:
    assert PLANTED not in json.dumps(redact({"value": value}))


def test_redaction_stays_fast_on_hostile_text() -> None:
    for text in ("://:" * 50_000, "password" * 50_000, "token = " + " " * 200_000, "x://" + "a" * 200_000):
        began_s = time.process_time()
        redact(text)
        assert time.process_time() - began_s < 0.5


@settings(deadline=None)  # a busy machine is not a failure
@given(st.dictionaries(st.sampled_from(["rows", "table", "path"]), st.text(alphabet="abc /-_", max_size=40)))
def test_what_is_not_secret_stays_as_it_is(value: dict[str, str]) -> None:
    assert redact(value) == value


def test_a_file_starts_anew_when_it_is_full_and_keeps_three_old_ones(tmp_path: Path) -> None:
    target = FileTarget(tmp_path / "mag.log", max_bytes=100)
    for number in range(10):
        target.write(b"%03d " % number + b"x" * 60 + b"\n")
    target.close()
    assert {path.name: path.read_bytes()[:3] for path in tmp_path.iterdir()} == {
        "mag.log": b"009",
        "mag.log.1": b"008",
        "mag.log.2": b"007",
        "mag.log.3": b"006",
    }


class StuckTarget:
    """Holds up its writer until it is released, then fails once, as a full disk would."""

    def __init__(self) -> None:
        self.release, self.reached, self.drained = threading.Event(), threading.Event(), threading.Event()
        self.written = b""
        self.fail = True

    def write(self, written: bytes) -> None:
        self.reached.set()
        assert self.release.wait(10)
        if self.fail:
            self.fail = False
            raise OSError("no space left")
        self.written += written
        if self.written.count(b"more\n") == MAX_WAITING:
            self.drained.set()

    def close(self) -> None:
        pass


def test_a_stuck_disk_loses_lines_but_never_blocks_and_says_so() -> None:
    target = StuckTarget()
    writer = LineWriter(target)
    writer.put(b"first\n")
    assert target.reached.wait(10)
    for _ in range(MAX_WAITING + 50):
        writer.put(b"more\n")
    target.release.set()  # the first line fails, fifty never fitted
    assert target.drained.wait(10)
    writer.put(b"next\n")
    writer.close(timeout_s=10)
    assert target.written.count(b"more\n") == MAX_WAITING
    assert target.written.endswith(b'"log lines lost","lost":51}\nnext\n')
