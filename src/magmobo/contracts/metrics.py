"""Figures a component tells about itself. Names start with `mag_`, units are base units, labels hold no ids.

Counting is an addition on a plain attribute; what it costs to show is paid by who asks. Source: CONTRACTS section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol


class Counter(Protocol):
    """Only grows. Hot paths may write `counter.value += 1`."""

    value: float

    def inc(self, amount: int = 1) -> None:
        """Add `amount`."""
        ...


class Histogram(Protocol):
    """Durations or sizes by bucket."""

    def observe(self, value: float) -> None:
        """Count one value."""
        ...


class Metrics(Protocol):
    """Where a component declares its figures. What it declares ends with it; asking for the same one twice gives the
    same object.

    Raises (all): ValueError for a name or label that is not allowed, or a name declared with another kind.
    """

    def counter(self, name: str, help: str, *, labels: Mapping[str, str] = {}) -> Counter:
        """A counter; `name` ends with `_total`."""
        ...

    def gauge(self, name: str, help: str, read: Callable[[], float], *, labels: Mapping[str, str] = {}) -> None:
        """A figure that goes up and down, read when somebody looks."""
        ...

    def histogram(
        self, name: str, help: str, *, buckets: Sequence[float] = (), labels: Mapping[str, str] = {}
    ) -> Histogram:
        """A distribution; without `buckets`, ones for durations in seconds from 100 us to 60 s."""
        ...
