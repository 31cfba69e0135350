"""Options that several commands share, and the one question before something is taken away."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, readable=False),
    help="Data folder of the node (default: as `mag up` chooses it).",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
watch = click.option("--watch", is_flag=True, help="Ask again every 2 seconds until interrupted.")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
yes = click.option("--yes", is_flag=True, help="Do not ask.")


def timeout(default_s: float) -> Callable[[F], F]:
    """`--timeout`, in seconds."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True, max=3600),
        default=default_s,
        show_default=True,
        help="Seconds to wait for the answer.",
    )


def confirm(question: str, *, yes: bool, alone: bool = True) -> None:
    """Ask once where somebody can answer. Where nobody can, `alone` says whether the command goes on.

    Raises: NotConfirmed.
    """
    from magmobo.cli.errors import NotConfirmed

    if yes:
        return
    if sys.stdin.isatty():
        if not click.confirm(question, err=True):
            raise NotConfirmed
    elif not alone:
        raise NotConfirmed
