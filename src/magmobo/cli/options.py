"""Options that several commands share, and the one question before something is taken away."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = r"(?:[0-9]{1,9}(?:\.[0-9]{1,3})?[smhd]){1,4}|[0-9]{1,9}(?:\.[0-9]{1,3})?"

data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, readable=False),
    help="Data folder of the node (default: as `mag up` chooses it).",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
watch = click.option("--watch", is_flag=True, help="Ask again every 2 seconds until interrupted.")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
yes = click.option("--yes", is_flag=True, help="Do not ask.")
accept_removed = click.option(
    "--accept-removed", is_flag=True, help="A settings file that is gone, or ends earlier than before, is meant to."
)


class Duration(click.ParamType[float]):
    """`90`, `90s`, `10m`, `1h30m`, `2d`: seconds, more than 0 and no more than `max_s`."""

    name = "duration"

    def __init__(self, *, max_s: float) -> None:
        self._max_s = max_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        if not re.fullmatch(_DURATION, text):
            self.fail(f"{text[:40]!r} is no duration; write 90s, 10m, 2h or 1h30m", param, ctx)
        parts = re.findall(r"([0-9.]+)([smhd]?)", text)
        duration_s = sum(float(number) * _UNITS_S[unit or "s"] for number, unit in parts)
        if not 0 < duration_s <= self._max_s:
            self.fail(f"{text!r} is not between 0 and {self._max_s / 86_400:g} days", param, ctx)
        return duration_s


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
