"""`kernel:call`: any command of the running node by its name, such as one that a component of yours answers.

Boundary: knows no command. The node decodes the fields, checks the role, records and answers as for every other order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from magmobo.cli import options
from magmobo.cli.context import client_of
from magmobo.cli.output import echo, print_json, printable


@click.command("kernel:call")
@click.argument("name", metavar="COMMAND")
@click.argument("fields", default="{}")
@options.data_dir
@options.dry_run
@options.timeout(30.0)
@options.as_json
def call(name: str, fields: str, data_dir: Path | None, dry_run: bool, timeout_s: float, as_json: bool) -> int:
    """Send COMMAND with FIELDS, one JSON object, and print the answer. `mag kernel:commands` lists the commands."""
    answer = client_of(data_dir, timeout_s).ask(name, object_of(fields), dry_run=dry_run)
    if as_json:
        print_json("kernel:call", {"name": name, "reply": answer})
    else:
        echo("\n".join(printable(line) for line in json.dumps(answer, ensure_ascii=False, indent=2).split("\n")))
    return 0


def object_of(text: str, what: str = "FIELDS") -> dict[str, Any]:
    """What a command line says as one JSON object; `what` is how its help calls it. Raises: UsageError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise click.UsageError(f"{what} is one JSON object, such as '{{\"count\": 3}}'")
    return found
