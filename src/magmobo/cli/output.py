"""What `mag` writes: JSON answers, errors with their next step, and text that is safe on a terminal.

Boundary: standard output carries the answer, standard error everything else. A terminal gets colours only when it is
one and NO_COLOR is unset.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magmobo.contracts.errors import MagError


def colours_allowed() -> bool | None:
    """For `click.Context.color`: never with NO_COLOR, else whatever the stream is."""
    return False if os.environ.get("NO_COLOR") else None


def print_json(command: str, fields: Mapping[str, Any]) -> None:
    """One JSON object on standard output; `schema` names its shape and `command` the question it answers."""
    schema = f"dev.magmobo.cli.{command.replace(':', '_')}.v1"
    click.echo(json.dumps({"schema": schema, "command": command, **fields}, ensure_ascii=False))


def print_error(error: MagError) -> int:
    """`mag: text [CODE]` and the next step, on standard error. Returns the exit code that goes with it."""
    from magmobo.admin.errors import NodeRefused

    if isinstance(error, NodeRefused):
        text, code, next_step, exit_code = error.text, error.fault_code, error.fault_next_step, error.fault_exit_code
    else:
        text, code, next_step, exit_code = str(error), error.code, error.next_step(), error.exit_code
    click.echo(f"mag: {as_typed(printable(text))} [{code}]", err=True)
    if next_step:
        click.echo(f"next: {as_typed(printable(next_step))}", err=True)
    return exit_code


def printable(text: str) -> str:
    """`text` in one line, without control characters: names from a database must not drive the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def as_typed(text: str) -> str:
    """`text` with the commands it quotes (`mag …`) as the user can type them here."""
    return text.replace("`mag ", f"`{program()} ")


def program() -> str:
    """What the user can type to run this program again: its name where that finds it, else its path."""
    started = Path(sys.argv[0])
    if started.name != "mag" or shutil.which("mag") == str(started.absolute()):
        return "mag"
    return shlex.quote(shortened(str(started.absolute())))


def shortened(path: str) -> str:
    """Relative to where the user stands, when it is below."""
    with suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


def flush_quietly() -> None:
    """Flush standard output; a reader that has gone away is no error of ours."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
