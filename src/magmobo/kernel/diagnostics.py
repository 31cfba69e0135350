"""What only the running node knows, for `mag diagnostics:dump`: text by name, without secrets, bounded.

Boundary: functions of what they are given; nothing is read, written or waited for. `collect` looks at live things
(tasks, frames) and belongs on the node's loop, where it takes milliseconds; `finished` does the slow searching for
secrets and may run in a thread. Invariant: a part that cannot be made says so in its place and costs no other part.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from magmobo.contracts.operations import BootReport, ComponentDetail, Diagnostics, DiagnosticsPart
from magmobo.contracts.planes import NodeStatus
from magmobo.kernel.config.loader import Config
from magmobo.kernel.masking import Masker
from magmobo.kernel.redact import redact
from magmobo.kernel.spellings import secrets_in

if TYPE_CHECKING:
    import asyncio
    import threading

PART_BYTES = 786_432
TOTAL_BYTES = 3_145_728
"""Together they fit one answer of the control socket, also when half of the characters have to be escaped."""
MAX_TASKS = 2_000
_MAX_FRAMES = 60
_CUT = "… what came before was cut off\n"


class Sources(Struct, frozen=True, kw_only=True):
    """Where the parts come from. `events` are CloudEvents, oldest first; `metrics` is the exposition text; `audit` and
    `facts` are small plain values such as the head of the log and versions.
    """

    status: Callable[[], NodeStatus]
    boot: Callable[[], BootReport]
    components: Callable[[], Sequence[ComponentDetail]]
    config: Config
    events: Callable[[], Iterable[Mapping[str, Any]]]
    metrics: Callable[[], str]
    audit: Callable[[], Mapping[str, Any]]
    facts: Mapping[str, Any]
    tasks: Callable[[], Iterable[asyncio.Task[Any]]]
    threads: Callable[[], Iterable[threading.Thread]]


def collect(sources: Sources) -> Sequence[DiagnosticsPart]:
    """The parts as they are, secrets included: they are for `finished` alone."""
    makers: Mapping[str, Callable[[], str]] = {
        "status.json": lambda: _json(sources.status()),
        "versions.json": lambda: _json(sources.facts),
        "config.txt": lambda: config_text(sources.config),
        "components.json": lambda: _json(sources.components()),
        "boot.json": lambda: _json(sources.boot()),
        "audit.json": lambda: _json(sources.audit()),
        "tasks.txt": lambda: tasks_text(sources.tasks()),
        "threads.txt": lambda: threads_text(sources.threads(), sys._current_frames()),
        "metrics.txt": sources.metrics,
        "events.jsonl": lambda: "".join(_json(event) + "\n" for event in sources.events()),
    }
    return [DiagnosticsPart(name, _made(make)) for name, make in makers.items()]


def finished(parts: Sequence[DiagnosticsPart], config: Config) -> Diagnostics:
    """The parts without secrets and inside their bounds; of a part too long, the end is kept."""
    masker = Masker(secrets_in([config.section(name) for name in config.sections]))
    done: list[DiagnosticsPart] = []
    left_bytes = TOTAL_BYTES
    for part in parts:
        limit_bytes = min(PART_BYTES, left_bytes)
        text = tail(part.text, limit_bytes)  # before the search, which is the slow step
        text = tail(masked(part.name, text, masker), limit_bytes)
        left_bytes -= len(text.encode(errors="replace"))
        done.append(DiagnosticsPart(part.name, text))
    return Diagnostics(done)


def masked(name: str, text: str, masker: Masker) -> str:
    """`text` without secrets; how it is read depends on what the file `name` would hold."""
    match name.rpartition(".")[2]:
        case "json":
            return masker.json(text, indent=1) + "\n"
        case "jsonl":
            return masker.json_lines(text)
    return masker.text(text)


def config_text(config: Config) -> str:
    """Every setting with where it comes from; secrets as `***`."""
    lines: list[str] = []
    for section in config.sections:
        fields = msgspec.structs.asdict(config.section(section))
        for name, value in fields.items():
            key = f"{section}.{name}"
            shown = json.dumps(redact(json.loads(_json(value)), name), ensure_ascii=False)
            lines.append(f"{key} = {shown}  ({config.origin(key)})")
    return "\n".join(lines) + "\n"


def tasks_text(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Every task by name: what it runs, and the lines it waits at, outermost first."""
    everyone = sorted(tasks, key=lambda task: task.get_name())
    blocks = [f"{len(everyone)} tasks"]
    for task in everyone[:MAX_TASKS]:
        state = "done" if task.done() else "cancelling" if task.cancelling() else "pending"
        blocks.append("\n".join([f"{task.get_name()}  {state}", *_awaited(task.get_coro())]))
    if len(everyone) > MAX_TASKS:
        blocks.append(f"… and {len(everyone) - MAX_TASKS} more")
    return "\n\n".join(blocks) + "\n"


def threads_text(threads: Iterable[threading.Thread], frames: Mapping[int, FrameType]) -> str:
    """Every thread by name and the lines it is at, outermost first; without source, which would have to be read."""
    names = {thread.ident: f"{thread.name}{' (daemon)' if thread.daemon else ''}" for thread in threads}
    blocks = []
    for ident, innermost in frames.items():
        stack: list[str] = []
        frame: FrameType | None = innermost
        while frame is not None and len(stack) < _MAX_FRAMES:
            stack.append(_place(frame.f_code, frame.f_lineno))
            frame = frame.f_back
        blocks.append("\n".join([names.get(ident, f"thread {ident}, not Python's"), *reversed(stack)]))
    return "\n\n".join(blocks) + "\n"


def tail(text: str, limit_bytes: int) -> str:
    """The end of `text`, from the begin of a line, in at most `limit_bytes` bytes of UTF-8."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit_bytes:
        return text
    room = max(0, limit_bytes - len(_CUT.encode()))
    kept = encoded[len(encoded) - room :].decode(errors="ignore")
    return (_CUT + kept.partition("\n")[2])[:limit_bytes]


def _awaited(coroutine: Any) -> list[str]:
    """The chain from a task's coroutine to what it waits for at last."""
    stack: list[str] = []
    while coroutine is not None and len(stack) < _MAX_FRAMES:
        frame = _first(coroutine, "cr_frame", "gi_frame", "ag_frame")
        code = _first(coroutine, "cr_code", "gi_code", "ag_code")
        if code is None:
            stack.append(f"    {type(coroutine).__name__}")
            break
        stack.append(_place(code, frame.f_lineno if frame is not None else code.co_firstlineno))
        coroutine = _first(coroutine, "cr_await", "gi_yieldfrom", "ag_await")
    return stack


def _first(value: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(value, name, None)) is not None), None)


def _place(code: CodeType, line: int) -> str:
    return f"    {code.co_filename}:{line} in {code.co_qualname}"


def _made(make: Callable[[], str]) -> str:
    try:
        return make()
    except Exception as error:
        return f"this part could not be made: {type(error).__name__}: {error}\n"


def _json(value: Any) -> str:
    """Structs as objects, secrets as `***`."""
    return msgspec.json.encode(value, enc_hook=str).decode()
