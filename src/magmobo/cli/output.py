"""What `mag` writes: JSON answers, errors with their next step, and text that is safe on a terminal.

Boundary: standard output carries the answer, standard error everything else. A terminal gets colours only when it is
one and NO_COLOR is unset. Nothing here needs click: the commands that must be fast write through this alone.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from magmobo.contracts.errors import MagError

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def colours_allowed() -> bool | None:
    """For `click.Context.color`: never with NO_COLOR, else whatever the stream is."""
    return False if os.environ.get("NO_COLOR") else None


def styled(text: str, style: str) -> str:
    """`text` in a colour, when standard output is a terminal that wants any."""
    if os.environ.get("NO_COLOR") or not is_terminal():
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def is_terminal() -> bool:
    """Whether standard output is a terminal that understands more than lines."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Its columns, None when standard output is no terminal: then nobody reads it in lines of a screen."""
    import shutil  # slow to import, and few commands ask

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def echo(text: str) -> None:
    """One line, or several, on standard output, at once: whoever reads a stream waits for it."""
    try:
        sys.stdout.write(text + "\n")
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def echo_error(text: str) -> None:
    """One line on standard error, which never fails on a character."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(command: str, fields: Mapping[str, Any]) -> None:
    """One JSON object on standard output; `schema` names its shape and `command` the question it answers."""
    schema = f"dev.magmobo.cli.{command.replace(':', '_').replace('-', '_')}.v1"
    echo(json_line({"schema": schema, "command": command, **fields}))


def json_line(value: Any) -> str:
    """`value` as JSON that any terminal can show and none obeys."""
    text = escaped(json.dumps(value, ensure_ascii=False))
    return text if _fits(text) else escaped(json.dumps(value))


def escaped(text: str) -> str:
    """JSON that means the same, with what cannot be printed spelt out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _spelt(char) for char in text)


def _spelt(char: str) -> str:
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]  # which `json` takes for a letter


def _fits(text: str) -> bool:
    """Whether standard output can say it."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def print_error(error: MagError, hide: Callable[[str], str] | None = None) -> int:
    """`mag: text [CODE]` and the next step, on standard error. Returns the exit code that goes with it.

    hide: takes secrets out of what is ours to say; by default what looks like one.
    """
    from magmobo.admin.errors import NodeRefused
    from magmobo.contracts.errors import ConfigError

    if isinstance(error, NodeRefused):
        text, code, next_step, exit_code = error.text, error.fault_code, error.fault_next_step, error.fault_exit_code
    else:
        text, code, next_step, exit_code = str(error), error.code, error.what_next(), error.exit_code
        if not isinstance(error, ConfigError):  # which shows values by the types of their keys, and is full of colons
            text = _hidden(text, hide)
    echo_error(f"mag: {as_typed(printable(text))} [{printable(code)}]")
    if next_step:
        echo_error(f"next: {as_typed(printable(next_step))}")
    return exit_code


def _hidden(text: str, hide: Callable[[str], str] | None) -> str:
    from magmobo.kernel.redact import redact_text  # with the first error

    return (hide or redact_text)(text)


def printable(text: str) -> str:
    """`text` in one line, without control characters: names from a database must not drive the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def as_typed(text: str) -> str:
    """`text` with the commands it quotes (`mag …`) as the user can type them here."""
    return text.replace("`mag ", f"`{program()} ") if "`mag " in text else text


def program() -> str:
    """What the user can type to run this program again: its name where that finds it, else its path."""
    import shlex  # loaded when something is quoted: both are slow to import
    import shutil
    from pathlib import Path

    started = Path(sys.argv[0])
    if started.name != "mag" or shutil.which("mag") == str(started.absolute()):
        return "mag"
    return shlex.quote(shortened(str(started.absolute())))


def shortened(path: str) -> str:
    """Relative to where the user stands, when it is below."""
    from pathlib import Path

    with suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


def flush_quietly() -> None:
    """Flush standard output; a reader that has gone away is no error of ours."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
