"""What every benchmark uses: interleaved rounds, medians with their spread, a ratio to a yardstick.

A figure alone says more about the machine and the hour than about the program. Here the subject and its yardstick take
turns, round by round, each going first as often as the other, and the ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

Sample = Mapping[str, float]
Better = Literal["higher", "lower"]
ROUNDS, QUICK_ROUNDS = 7, 3


class CpuClock:
    """How much of the machine's CPU time other programs took since this was made."""

    def __init__(self) -> None:
        self._began_s, self._busy_s, self._ours_s = time.monotonic(), _busy_s(), _ours_s()

    def others(self) -> float:
        """Their share of all cores, 0 to 1. Children count as ours once they have ended."""
        available_s = (time.monotonic() - self._began_s) * (os.cpu_count() or 1)
        others_s = (_busy_s() - self._busy_s) - (_ours_s() - self._ours_s)
        return min(1.0, max(0.0, others_s / available_s))


def _busy_s() -> float:
    """CPU seconds of everything on the machine since its start: user, nice, system, interrupts, steal."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _ours_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Figure(Struct, frozen=True):
    """One line of the table. `ratio` above 1 is better than the yardstick, whatever the unit."""

    name: str
    unit: str
    better: Better
    value: float
    low: float
    high: float
    rounds: int
    yardstick: str = ""
    yardstick_value: float | None = None
    ratio: float | None = None
    note: str = ""


def interleaved(rounds: int, contenders: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Run every contender once a round, in alternating order; their samples, round by round."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            samples[name].append(contenders[name]())
    return samples


def figure(
    name: str,
    unit: str,
    better: Better,
    values: Sequence[float],
    *,
    yardstick: str = "",
    yardstick_values: Sequence[float] = (),
    note: str = "",
) -> Figure:
    """The median of `values` with its range, beside the yardstick's; both lists hold one value a round, in order."""
    yardstick_value = ratio = None
    if yardstick_values:
        pairs = zip(values, yardstick_values, strict=True)
        yardstick_value = statistics.median(yardstick_values)
        ratio = statistics.median(ours / theirs if better == "higher" else theirs / ours for ours, theirs in pairs)
    return Figure(
        name=name,
        unit=unit,
        better=better,
        value=statistics.median(values),
        low=min(values),
        high=max(values),
        rounds=len(values),
        yardstick=yardstick,
        yardstick_value=yardstick_value,
        ratio=ratio,
        note=note,
    )


def compared(
    samples: Mapping[str, list[Sample]],
    subject: str,
    yardstick: str,
    key: str,
    name: str,
    unit: str,
    better: Better,
    *,
    note: str = "",
) -> Figure:
    """The figure `key` of `subject` beside that of `yardstick`, from what `interleaved` gave."""
    return figure(
        name,
        unit,
        better,
        [sample[key] for sample in samples[subject]],
        yardstick=yardstick,
        yardstick_values=[sample[key] for sample in samples[yardstick]],
        note=note,
    )


def median_of(samples: Sequence[Sample], key: str) -> float:
    """The median of one value over the rounds."""
    return statistics.median(sample[key] for sample in samples)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed. Raises: IndexError when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
