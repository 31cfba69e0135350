"""How figures are shown: lines on the terminal, a page in docs/."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import Figure

_PACKAGES = ("uvloop", "httptools", "uvicorn", "psycopg", "msgspec")
_GIBIBYTE = 2**30


def machine() -> str:
    """The machine in one line, without anything that names it."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIBIBYTE
    kernel = platform.release().partition("-")[0]
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{model}, {cores} cores, {memory_gib:.1f} GiB, {platform.system()} {kernel}, "
        f"Python {platform.python_version()}, {packages}"
    )


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if abs(value) >= 1_000:
        digits = len(str(int(abs(value))))
        return f"{round(value, 3 - digits):,.0f}"
    return f"{value:.3g}"


def line(item: Figure) -> str:
    """One figure for the terminal."""
    beside = ""
    if item.yardstick_value is not None and item.ratio is not None:
        beside = f"   {item.ratio:.2f} x {item.yardstick} ({number(item.yardstick_value)})"
    return f"{item.name:<44} {number(item.value):>10} {item.unit:<16} [{number(item.low)}-{number(item.high)}]{beside}"


def company(others: float) -> str:
    """Whether the machine was quiet."""
    return f"other programs took {others:.0%} of the machine's CPU time meanwhile"


def page(figures: Mapping[str, Sequence[Figure]], about: Mapping[str, str], others: Mapping[str, float]) -> str:
    """docs/performance.md; `about` holds every benchmark's docstring, `others` the share of the
    CPU that other programs took.
    """
    parts = [
        "# Performance",
        "Written by `make bench` (`python -m benchmarks.run`); do not edit. A figure is the median of interleaved "
        "rounds with its range; the ratio is to the yardstick of the same rounds, and above 1 means better than it.",
        f"Measured {time.strftime('%Y-%m-%d', time.gmtime())} on: {machine()}.",
    ]
    for name, items in figures.items():
        parts += [f"## {name}", about[name], _table(items)]
        parts += [f"{item.name}: {item.note}" for item in items if item.note]
        parts.append(f"During these rounds {company(others[name])}.")
    return "\n\n".join(parts) + "\n"


def _table(items: Sequence[Figure]) -> str:
    rows = ["| what | value | range | rounds | yardstick | its value | ratio |", "|---|---|---|---|---|---|---|"]
    for item in items:
        beside = ("", "")
        if item.yardstick_value is not None and item.ratio is not None:
            beside = (f"{number(item.yardstick_value)} {item.unit}", f"{item.ratio:.2f}")
        rows.append(
            f"| {item.name} | {number(item.value)} {item.unit} | {number(item.low)} to {number(item.high)} "
            f"| {item.rounds} | {item.yardstick} | {beside[0]} | {beside[1]} |"
        )
    return "\n".join(rows)
