"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

data_dir = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Data folder of the node (default: as `mag up` chooses it)."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")


def timeout(default_s: float) -> Callable[[F], F]:
    """`--timeout`, in seconds."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=default_s,
        show_default=True,
        help="Seconds to wait for the answer.",
    )
