"""`mag status`, `mag kernel:status` and `mag component:list` in their plainest forms, without click.

These are what scripts and probes run every few seconds, so that what they import is what they cost.
Invariant: whatever is not exactly one of these forms is left to the full command line, which knows every option and
says what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from magmobo.admin.client import AdminClient
from magmobo.admin.errors import ControlConnectionLost
from magmobo.cli import statuses
from magmobo.cli.folder import find_folder
from magmobo.cli.output import echo, print_json

_TIMEOUT_S = 10.0
_ROLES = ("", "viewer", "developer", "operator", "admin")


class _Form(NamedTuple):
    fields: Callable[[statuses.Fields], dict[str, Any]]
    lines: Callable[[statuses.Fields], Iterator[str]]


FORMS = {
    "status": _Form(statuses.status_fields, statuses.status_lines),
    "kernel:status": _Form(statuses.kernel_status_fields, statuses.kernel_status_lines),
    "component:list": _Form(statuses.component_list_fields, statuses.component_list_lines),
}
_NOUNS = ("kernel", "component")


class _Asked(NamedTuple):
    command: str
    data_dir: str | None
    as_json: bool


def run(words: Sequence[str]) -> int | None:
    """The exit code, or None when these words are not for here. Raises: what `AdminClient` raises."""
    asked = _read(words)
    role = os.environ.get("MAG_ROLE", "")
    folder = None if asked is None else find_folder(asked.data_dir, Path.cwd(), os.environ)
    if asked is None or folder is None or role not in _ROLES:
        return None
    node = AdminClient(folder, timeout_s=_TIMEOUT_S, role=role).status()
    return show(asked.command, node, as_json=asked.as_json)


def show(command: str, node: statuses.Fields, *, as_json: bool) -> int:
    """Print one status as `command` does; the exit code. Raises: ControlConnectionLost for what is no status."""
    form = FORMS[command]
    try:
        exit_code = statuses.exit_code_of(node)
        text = "" if as_json else "\n".join(form.lines(node))
        fields = form.fields(node) if as_json else {}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ControlConnectionLost("its answer is not one we understand") from error
    if as_json:
        print_json(command, fields)
    elif text:
        echo(text)
    return exit_code


def _read(words: Sequence[str]) -> _Asked | None:
    if not words:
        return None
    command, rest = words[0], list(words[1:])
    if command in _NOUNS and rest:
        command = f"{command}:{rest.pop(0)}"
    if command not in FORMS:
        return None
    data_dir: str | None = None
    as_json = False
    while rest:
        word = rest.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--data-dir" and rest and not rest[0].startswith("-"):
            data_dir = rest.pop(0)
        else:
            return None
    return _Asked(command, data_dir, as_json)
