"""The parts of the archive that a running node makes: each by itself, bounded, without the configuration's secrets."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from magmobo.admin.client import MAX_ANSWER_BYTES
from magmobo.admin.wire import encode_result
from magmobo.contracts.operations import BootReport
from magmobo.contracts.planes import ComponentStatus, NodeStatus
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.loader import load_config
from magmobo.kernel.diagnostics import (
    PART_BYTES,
    Sources,
    collect,
    config_text,
    finished,
    tail,
    tasks_text,
    threads_text,
)

SECRET = "planted-Passw0rd"
STATUS = NodeStatus("i", "ready", "test", "1", 1.0, [ComponentStatus("a", "failed", "unknown", 0, "now", f"{SECRET}!")])


class App(Struct, frozen=True, forbid_unknown_fields=True):
    """One of several."""

    id: str
    secret: Secret


class ThingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [thing]."""

    dsn: Secret | None = None
    apps: tuple[App, ...] = ()
    limit: int = 3


CONFIG = load_config(
    {"thing": ThingConfig},
    [
        Layer("file", "mag.toml", {"thing": {"apps": [{"id": "1", "secret": SECRET}]}}),
        Layer("environment", "environment", {"thing": {"dsn": f"postgres://me:{SECRET}2@h/d"}}),
    ],
)


def sources(**more: Any) -> Sources:
    events: Iterable[Mapping[str, Any]] = [{"type": "t", "data": {"text": SECRET, "token": "x"}}]
    given: dict[str, Any] = {
        "status": lambda: STATUS,
        "boot": lambda: BootReport(1.0, "now", False, []),
        "components": list,
        "config": CONFIG,
        "events": lambda: events,
        "metrics": lambda: "mag_uptime_seconds 1.0\n",
        "audit": lambda: {"head_seq": 7},
        "facts": {"version": "1"},
        "tasks": asyncio.all_tasks,
        "threads": threading.enumerate,
    }
    return Sources(**{**given, **more})


def texts(given: Sources) -> dict[str, str]:
    return {part.name: part.text for part in finished(collect(given), CONFIG).parts}


async def test_every_part_is_there_and_none_holds_a_secret() -> None:
    found = texts(sources())
    assert found.keys() == {
        "status.json", "versions.json", "config.txt", "components.json", "boot.json", "audit.json", "tasks.txt",
        "threads.txt", "metrics.txt", "events.jsonl",
    }  # fmt: skip
    assert not [name for name, text in found.items() if SECRET in text]
    assert msgspec.json.decode(found["status.json"], type=NodeStatus).components[0].detail == "***!"
    assert json.loads(found["events.jsonl"]) == {"type": "t", "data": {"text": "***", "token": "***"}}
    assert json.loads(found["audit.json"]) == {"head_seq": 7}


def test_settings_are_shown_with_their_origin_and_without_secrets() -> None:
    assert config_text(CONFIG).splitlines() == [
        'thing.dsn = "***"  (environment)',
        'thing.apps = [{"id": "1", "secret": "***"}]  (mag.toml)',
        "thing.limit = 3  (default)",
    ]


async def test_a_part_that_cannot_be_made_costs_no_other() -> None:
    def broken() -> Any:
        raise ZeroDivisionError(SECRET)

    kinds = ("status", "boot", "components", "events", "metrics", "audit", "tasks", "threads")
    found = texts(sources(**dict.fromkeys(kinds, broken)))
    assert sum("could not be made: ZeroDivisionError" in text for text in found.values()) == len(kinds)
    assert "thing.limit" in found["config.txt"]
    assert not [name for name, text in found.items() if SECRET in text]


@pytest.mark.parametrize("filling", ['"', "\\", "ü", "\U0001f600", "\x00", "a\n", "\n"])
async def test_the_whole_fits_one_answer_whatever_it_is_full_of(filling: str) -> None:
    many = filling * PART_BYTES
    given = sources(
        metrics=lambda: many, facts={"a": many}, audit=lambda: {"a": many}, status=lambda: many, boot=lambda: many,
        components=lambda: many, events=lambda: [{"a": filling * 300}] * 3_000,
    )  # fmt: skip
    assert len(encode_result(msgspec.json.encode(finished(collect(given), CONFIG)))) < MAX_ANSWER_BYTES


@pytest.mark.parametrize("limit", [40, 100, 1_000, 100_000])
def test_the_end_of_a_text_is_kept_by_whole_lines(limit: int) -> None:
    text = "".join(f"line {number} ü\n" for number in range(500))
    kept = tail(text, limit)
    assert len(kept.encode()) <= limit
    if limit < len(text.encode()):
        assert kept.startswith("…")
        assert kept.partition("\n")[2] in text
        assert limit == 40 or kept.endswith("line 499 ü\n")
    else:
        assert kept == text


async def waits_for(event: asyncio.Event) -> None:
    await event.wait()


async def outer(event: asyncio.Event) -> None:
    local_secret = SECRET  # never shown: places only
    await waits_for(event)
    print(local_secret)


async def test_a_task_is_shown_with_the_lines_it_waits_at() -> None:
    event = asyncio.Event()
    task = asyncio.create_task(outer(event), name="magds:reader")
    await asyncio.sleep(0)
    shown = tasks_text([task])
    rows = shown.splitlines()
    assert rows[2] == "magds:reader  pending"
    assert [row.rpartition(" in ")[2] for row in rows[3:6]] == ["outer", "waits_for", "Event.wait"]
    assert all(f"{__file__}:" in row for row in rows[3:5])
    assert SECRET not in shown
    event.set()
    await task
    assert "magds:reader  done" in tasks_text([task])


def test_a_thread_is_shown_with_the_lines_it_is_at() -> None:
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        end.wait()

    thread = threading.Thread(target=hold, name="writer", daemon=True)
    thread.start()
    assert begun.wait(10)
    shown = threads_text(threading.enumerate(), sys._current_frames())
    end.set()
    thread.join()
    block = next(block for block in shown.split("\n\n") if block.startswith("writer (daemon)"))
    assert "in test_a_thread_is_shown_with_the_lines_it_is_at.<locals>.hold" in block
    assert "not Python's" in threads_text([], sys._current_frames())
