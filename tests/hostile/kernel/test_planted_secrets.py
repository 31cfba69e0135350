"""Secrets that look like nothing, through every way out of a kernel and of a command line, one by one."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import warnings
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import Struct

from magmobo.admin.wire import Fault, encode_fault
from magmobo.cli.output import print_error
from magmobo.components.maggate.errors import DatabaseRefused
from magmobo.components.maggate.problem import problem
from magmobo.components.magws.errors import ChangesNotReady
from magmobo.components.magws.protocol.session import Limits, Session
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.commands import Call, Command
from magmobo.contracts.component import Announcement, Component, Context
from magmobo.contracts.errors import ConfigError, MagError, Unavailable
from magmobo.contracts.events import HealthFailed
from magmobo.contracts.secret import Secret
from magmobo.kernel.bus.cloudevents import operator_view
from magmobo.kernel.known import KnownSecrets
from magmobo.kernel.observe.logging import configure_logging
from magmobo.testing.harness import running_kernel

PLANTED = "quiet-Hill-under-77-lamps"
ADMIN = Actor(name="uid:1", role=Role.ADMIN, via="control")
KNOWN = KnownSecrets()
KNOWN.add(PLANTED)


class Ours(MagError):
    """An error in the way of ours."""

    code = "MAG-TEST-101"
    remedy = f"Do not say {PLANTED}."

    def __str__(self) -> str:
        return f"cannot use {PLANTED}"


# ---------------------------------------------------------------- what Python says by itself


@pytest.fixture
def lines(tmp_path: Path) -> Any:
    """What was logged, once it is closed."""
    stream, file = StringIO(), tmp_path / "mag.jsonl"
    output = configure_logging(
        level="debug", format="json", instance_id="n", file=file, stream=stream, mask=KNOWN.value
    )

    def read() -> str:
        output.close()
        assert file.read_text() == stream.getvalue()
        return stream.getvalue()

    yield read
    output.close()


class Broken:
    def __del__(self) -> None:
        raise ValueError(f"cannot end {PLANTED}")

    def __repr__(self) -> str:
        raise ValueError(f"cannot show {PLANTED}")


def test_errors_of_threads_and_finalizers_and_warnings_become_lines(lines: Any, capsys: Any) -> None:
    def fail() -> None:
        raise OSError(5, "no", PLANTED)

    thread = threading.Thread(target=fail, name="worker-1")
    thread.start()
    thread.join()
    leaving = threading.Thread(target=sys.exit)
    leaving.start()
    leaving.join()
    broken = Broken()
    del broken
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"do not use {PLANTED}", stacklevel=1)
    said = [json.loads(line) for line in lines().splitlines()]
    assert [line["event"].partition(":")[0] for line in said[:2]] == [
        "a thread ended with an error", "an error was ignored in Broken.__del__",
    ]  # fmt: skip
    assert "do not use ***" in said[2]["event"]
    assert len(said) == 3
    assert "OSError: [Errno 5] no: '***'" in said[0]["exception"]
    assert "cannot end ***" in said[1]["exception"]
    assert PLANTED not in json.dumps(said)
    captured = capsys.readouterr()
    assert PLANTED not in captured.out + captured.err


def test_python_gets_its_own_ways_back(lines: Any) -> None:
    assert threading.excepthook is not threading.__excepthook__
    lines()
    assert threading.excepthook is threading.__excepthook__
    assert sys.unraisablehook is sys.__unraisablehook__


def test_whatever_is_logged_in_whatever_form(lines: Any) -> None:
    log, library = structlog.get_logger(), logging.getLogger("library")
    log.info(f"said {PLANTED}", words=[{PLANTED: {PLANTED}}], sub="ada", raw=PLANTED.encode(), secret=Secret(PLANTED))
    library.error("said %s and %r", PLANTED, {"x": PLANTED}, extra={"more": PLANTED})
    try:
        raise ValueError(PLANTED) from KeyError(PLANTED)
    except ValueError:
        log.exception("failed")
        library.exception("failed")
    said = lines()
    assert said.count("failed") == 2
    assert PLANTED not in said
    assert '"ada"' not in said


# ---------------------------------------------------------------- a kernel


class TalkerConfig(Struct, frozen=True, kw_only=True):
    words: Secret | None = None


class Talker(Component):
    """Says its secret wherever a component can."""

    name = "talker"
    config_type = TalkerConfig
    starts = 0

    def __init__(self, context: Context) -> None:
        self._context = context

    async def start(self) -> None:
        context = self._context
        context.bus.emit(HealthFailed(name=f"x {PLANTED}", error=f"password=abc {PLANTED}"))
        context.metrics.counter("mag_talks_total", "Talks.", labels={"of": PLANTED}).inc()
        context.metrics.counter("mag_talks_total", "Talks.", labels={"of": PLANTED.encode().hex()}).inc()
        await context.audit.record("component.restart", actor=ADMIN, payload={"a": [PLANTED], PLANTED: 1})
        Talker.starts += 1
        if Talker.starts > 1:
            raise RuntimeError(f"cannot start with {PLANTED}")

    def announce(self) -> Announcement:
        return Announcement(urls={"x": PLANTED}, examples=[PLANTED], notices=[f"see {PLANTED}"])


async def test_no_answer_of_a_kernel_holds_it() -> None:
    Talker.starts = 0
    async with running_kernel(Talker, config={"talker": {"words": PLANTED}}) as kernel:
        run = kernel.services.commands.run
        exposed = kernel.services.metrics.exposition()[1]
        status = kernel.status()
        announced = [*status.urls.values(), *status.examples, *status.notices]
        with pytest.raises(MagError) as refusal:
            await run("component:restart", b'{"component":"talker"}', actor=ADMIN)
        answers = {
            command: await run(command, params, actor=ADMIN)
            for command, params in (
                ("kernel:status", b"{}"), ("component:show", b'{"component":"talker"}'), ("component:list", b"{}"),
                ("kernel:events", b'{"limit":1000}'), ("audit:tail", b'{"limit":1000}'), ("diagnostics:dump", b"{}"),
            )
        }  # fmt: skip
        failed = kernel.status()
        told = Fault.of(refusal.value, kernel.services.known.text)
    assert b"cannot start with ***" in answers["component:show"]
    assert b"password=*** ***" in answers["kernel:events"]
    assert announced == ["***", "***", "see ***"]
    assert "cannot start with ***" in failed.components[0].detail
    assert "cannot start with ***" in told.text
    assert exposed.count(b'mag_talks_total{of="***"} 1.0') == 1, "the page stays one that Prometheus takes"
    for place, text in {**answers, "metrics": exposed, "fault": told.text.encode()}.items():
        assert PLANTED.encode() not in text, place


class Words(Struct, frozen=True):
    words: list[str]


class Say(Command, frozen=True, kw_only=True):
    """Answer `count` lines with the secret in each."""

    name = "test:say"
    summary = "Say it."
    reply = Words
    count: int


@pytest.mark.parametrize("count", [1, 2_000])
async def test_an_answer_of_any_length_is_searched(count: int) -> None:
    async def say(command: Say, call: Call) -> Words:
        return Words(["word " * 20 + PLANTED] * command.count)

    Talker.starts = 0
    async with running_kernel(Talker, config={"talker": {"words": PLANTED}}) as kernel:
        kernel.services.commands.handle("test", Say, say)
        answer = await kernel.services.commands.run("test:say", b'{"count":%d}' % count, actor=ADMIN)
    assert answer.count(b"***") == count
    assert PLANTED.encode() not in answer


async def test_rows_stay_private_and_other_fields_are_searched() -> None:
    seen: list[dict[str, Any]] = []

    def look(envelope: Any) -> None:
        seen.append(operator_view(envelope, "/n", KNOWN.value))

    async with running_kernel() as kernel:
        kernel.bus.subscribe("kernel", HealthFailed, look)
        kernel.bus.emit(HealthFailed(name="x", error=f"at postgres://u:pw@h with {PLANTED}"))
        await asyncio.sleep(0)
    assert seen[0]["data"] == {"name": "x", "error": "at postgres://u:***@h with ***"}


# ---------------------------------------------------------------- doors


def test_the_control_socket_tells_errors_without_it() -> None:
    line = encode_fault(Ours(), KNOWN.text)
    assert b"cannot use ***" in line
    assert PLANTED.encode() not in line


def test_rest_tells_errors_without_it() -> None:
    error = DatabaseRefused("P0001", 400, f"it is {PLANTED}", PLANTED, f"try {PLANTED}")
    _, _, body = problem(error, KNOWN.public_text)
    told = json.loads(body)
    assert (told["message"], told["details"], told["hint"]) == ("it is ***", "***", "try ***")
    assert PLANTED.encode() not in body


def test_realtime_tells_errors_without_it() -> None:
    session = Session("1.1", Limits(), now_s=0.0, hide=KNOWN.public_text)
    session.outgoing()
    session.refused(ChangesNotReady("db.public.x", f"not with {PLANTED}"), Unavailable(PLANTED))
    session.receive(json.dumps({"event": PLANTED, "data": {}}).encode(), 1.0)
    said = session.outgoing()
    assert said.count(b"***") == 2
    assert PLANTED.encode() not in said


def test_the_command_line_tells_errors_without_it(capsys: Any) -> None:
    assert print_error(Ours(), KNOWN.text) == 1
    assert "mag: cannot use *** [MAG-TEST-101]" in capsys.readouterr().err
    print_error(Unavailable("postgres://u:pw@h"))
    assert "postgres://u:***@h" in capsys.readouterr().err
    print_error(ConfigError(["MAG_X__PASSWORD: vault is not set"]))
    assert "MAG_X__PASSWORD: vault is not set" in capsys.readouterr().err
