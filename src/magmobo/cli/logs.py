"""`mag logs`: the node's JSON lines, for people or as they are. Works also when no node runs."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from magmobo.cli import options
from magmobo.cli.context import folder_of
from magmobo.cli.output import escaped, printable

_POLL_S = 0.2
_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red", "critical": "red"}


@click.command()
@options.data_dir
@click.option("--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many of the last lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines as they were written.")
def logs(data_dir: Path | None, lines: int, follow: bool, as_json: bool) -> int:
    """Show the log of the node."""
    from magmobo.cli.errors import NoLogYet

    path = folder_of(data_dir).log_file
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise NoLogYet(str(path)) from error
    with file:
        for line in deque(file, maxlen=lines):
            _print(line, as_json=as_json)
        if follow:
            for line in new_lines(path, file):
                _print(line, as_json=as_json)
    return 0


def new_lines(path: Path, file: IO[str], *, poll_s: float = _POLL_S) -> Iterator[str]:
    """Whole lines as they are appended to `path`, without end; a file that was rotated away is followed to the new one.

    Python has no portable notice of a growing file, so the file is asked every `poll_s` seconds, as tail does.
    """
    part = ""
    while True:
        text = file.readline()
        part += text
        if part.endswith("\n"):
            yield part
            part = ""
        elif not text:
            if _was_replaced(path, file):
                file = path.open(encoding="utf-8", errors="replace")
            else:
                time.sleep(poll_s)


def _was_replaced(path: Path, file: IO[str]) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _print(line: str, *, as_json: bool) -> None:
    click.echo(escaped(line.rstrip("\n")) if as_json else pretty(line))


def pretty(line: str) -> str:
    """One log line for people: time, level, component, event, then the other fields; what is not JSON stays as is."""
    try:
        fields: dict[str, Any] = json.loads(line)
        level = printable(str(fields.pop("level", "info")))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return printable(line.rstrip("\n"))
    head = [str(fields.pop(name, "")) for name in ("time", "component", "event")]
    fields.pop("instance_id", None)
    trace = fields.pop("exception", None)
    rest = " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()
    )
    coloured = click.style(f"{level:<8}", fg=_COLOURS.get(level))
    text = f"{printable(head[0])} {coloured}{printable(head[1]):<10} {printable(head[2])}  {printable(rest)}".rstrip()
    return text if trace is None else f"{text}\n{_indented(str(trace))}"


def _indented(trace: str) -> str:
    return "\n".join(f"    {printable(row)}" for row in trace.splitlines())
