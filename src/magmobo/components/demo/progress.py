"""Shows how far a load is: a bar on a terminal, two plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

REFRESH_EVERY_S = 0.05


class Progress(Protocol):
    """What a load reports to."""

    def advance(self, label: str, size_bytes: int) -> None:
        """`size_bytes` more of the whole are done; `label` says what is being worked on."""
        ...


class _Lines:
    def advance(self, label: str, size_bytes: int) -> None:
        """A log file has no use for steps in between."""


@contextmanager
def shown_on(stream: TextIO, title: str, total_bytes: int) -> Iterator[Progress]:
    """Report one load of `total_bytes` to `stream` while the block runs; the end is written only if it succeeds."""
    started = time.perf_counter()
    if stream.isatty():
        with _bar(stream, title, total_bytes) as bar:
            yield bar
    else:
        _write(stream, f"{title} ...")
        yield _Lines()
    _write(stream, f"{title} took {time.perf_counter() - started:.1f} s")


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


@contextmanager
def _bar(stream: TextIO, title: str, total_bytes: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as RichProgress

    # No refresh thread: the load itself asks for a redraw, so nothing draws while it waits.
    with RichProgress(
        TextColumn(title), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[label]}"),
        console=Console(file=stream), transient=True, auto_refresh=False,
    ) as progress:  # fmt: skip
        task = progress.add_task(title, total=total_bytes, label="")
        last_s = 0.0

        class Bar:
            def advance(self, label: str, size_bytes: int) -> None:
                nonlocal last_s
                progress.update(task, advance=size_bytes, label=label)
                if time.perf_counter() - last_s >= REFRESH_EVERY_S:
                    last_s = time.perf_counter()
                    progress.refresh()

        yield Bar()
