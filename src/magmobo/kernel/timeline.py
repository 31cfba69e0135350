"""Where a boot spends its time: spans of stages and of components, for `kernel:blame`. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct


class Span(Struct, frozen=True):
    """`began_s` and `ended_s` are of the node's monotonic clock; `component` and `phase` are empty for a stage."""

    stage: str
    component: str
    phase: str
    began_s: float
    ended_s: float


class Timeline:
    """The spans of one boot, in the order in which they ended. `stage` is the one under way."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._under_way: list[tuple[str, str]] = []
        self.stage = ""
        self.spans: list[Span] = []

    @property
    def under_way(self) -> Sequence[tuple[str, str]]:
        """Component and phase of every span that has begun and not ended, oldest first; stages are left out."""
        return [(component, phase) for component, phase in self._under_way if component]

    @contextmanager
    def span(self, component: str, phase: str) -> Iterator[None]:
        """Note how long the block took, whether or not it raised; outside of a boot nothing is noted."""
        stage, began_s, mark = self.stage, self._monotonic_s(), (component, phase)
        if not stage:
            yield
            return
        self._under_way.append(mark)
        try:
            yield
        finally:
            self._under_way.remove(mark)
            self.spans.append(Span(stage, component, phase, began_s, self._monotonic_s()))
