"""The figures of one node: declared by their owners, counted in plain attributes, shown when somebody asks.

Counting costs an addition; the exposition format comes from prometheus_client, which is imported by the first question
(56 ms). Boundary: no I/O. Invariant: label values never multiply without a bound: past `MAX_SERIES` of one name the
rest share a series whose labels say `other`. Source of the names: CONTRACTS section 8.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

MAX_SERIES = 200
MAX_LABEL_CHARS = 100
OTHER = "other"
DURATION_BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
Kind = Literal["counter", "gauge", "histogram"]
_NAME, _LABEL = r"mag_[a-z][a-z0-9_]{0,80}", r"[a-z][a-z0-9_]{0,30}"
_TAKEN_LABELS = ("le", "quantile")  # the format's own


class PlainCounter:
    """Implements `contracts.metrics.Counter`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: int = 1) -> None:
        self.value += amount


class PlainHistogram:
    """Implements `contracts.metrics.Histogram`; `counts` has one place more than `bounds`, for what is above all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as the exposition format wants them."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class Sample(Struct, frozen=True):
    """One series as it is now. `histogram` is set instead of `value` for a distribution."""

    labels: Mapping[str, str]
    value: float = 0.0
    histogram: PlainHistogram | None = None


class Family(Struct, frozen=True):
    """All series of one name."""

    name: str
    kind: Kind
    help: str
    samples: Sequence[Sample]


Collect = Callable[[], Iterable[Family]]


class _Declared:
    """One name: what it is, and its series by label values."""

    def __init__(self, name: str, kind: Kind, help: str, label_names: tuple[str, ...]) -> None:
        self.name, self.kind, self.help, self.label_names = name, kind, help, label_names
        self.series: dict[tuple[str, ...], Any] = {}
        self.owners: dict[tuple[str, ...], str] = {}

    def family(self) -> Family:
        samples = []
        for values, series in self.series.items():
            labels = dict(zip(self.label_names, values, strict=True))
            if isinstance(series, PlainHistogram):
                samples.append(Sample(labels, histogram=series))
            elif (value := _read(series)) is not None:
                samples.append(Sample(labels, value))
        return Family(self.name, self.kind, self.help, samples)


class MetricsRegistry:
    """Every figure of one node."""

    def __init__(self, hide: Callable[[str], str] = str) -> None:
        """`hide` takes secrets out of the values of labels when somebody looks."""
        self._hide = hide
        self._declared: dict[str, _Declared] = {}
        self._collectors: dict[str, list[Collect]] = {}

    def scoped(self, owner: str) -> ScopedMetrics:
        """The registry as one component sees it."""
        return ScopedMetrics(self, owner)

    def collect_from(self, owner: str, collect: Collect) -> None:
        """Ask `collect` for families each time somebody looks, until `close_owner(owner)`."""
        self._collectors.setdefault(owner, []).append(collect)

    def series(
        self, owner: str, name: str, kind: Kind, help: str, labels: Mapping[str, str], make: Callable[[], Any]
    ) -> Any:
        """The series of these labels, made by `make` when it is new. Raises: ValueError.

        A gauge is made anew for its owner: after a restart there are other things to read.
        """
        declared = self._declare(name, kind, help, tuple(sorted(labels)))
        values = tuple(_label_value(labels[label]) for label in declared.label_names)
        if values not in declared.series and len(declared.series) >= MAX_SERIES:
            values = (OTHER,) * len(values)
        if values not in declared.series or (kind == "gauge" and declared.owners[values] == owner):
            declared.series[values] = make()
            declared.owners[values] = owner
        return declared.series[values]

    def close_owner(self, owner: str) -> None:
        """Forget what `owner` declared."""
        self._collectors.pop(owner, None)
        for name, declared in list(self._declared.items()):
            for values in [values for values, holder in declared.owners.items() if holder == owner]:
                del declared.series[values], declared.owners[values]
            if not declared.series:
                del self._declared[name]

    def families(self) -> list[Family]:
        """Everything, by name. A collector that raises costs its own families only; what it has shown nobody else
        shows again, because Prometheus refuses a page with one name in two places.
        """
        found: dict[str, Family] = {}
        for collect in [collect for collectors in self._collectors.values() for collect in collectors]:
            with suppress(Exception):  # a figure that cannot be read must not hide the others
                for family in collect():
                    found.setdefault(family.name, family)
        for declared in self._declared.values():
            found.setdefault(declared.name, declared.family())
        return [self._without_secrets(found[name]) for name in sorted(found)]

    def _without_secrets(self, family: Family) -> Family:
        """Labels that are the same without a secret stand for one series, the first: two would spoil the page."""
        shown: dict[tuple[str, ...], Sample] = {}
        for sample in family.samples:
            labels = {name: self._hide(value) for name, value in sample.labels.items()}
            kept = sample if labels == sample.labels else Sample(labels, sample.value, sample.histogram)
            shown.setdefault(tuple(labels.values()), kept)
        return Family(family.name, family.kind, family.help, list(shown.values()))

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and text for Prometheus, in the format that `accept` (an HTTP header) asks for."""
        from prometheus_client.exposition import choose_encoder
        from prometheus_client.registry import CollectorRegistry

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_as_collector(self.families()))
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # versions that are no numbers, for instance: whoever asks so gets the plain format
            encode, content_type = choose_encoder("")
        return content_type, encode(registry)

    def _declare(self, name: str, kind: Kind, help: str, label_names: tuple[str, ...]) -> _Declared:
        if not re.fullmatch(_NAME, name) or (kind == "counter") != name.endswith("_total"):
            raise ValueError(f"{name!r} is no name for a {kind}: mag_ and lower-case words, _total for counters alone")
        for label in label_names:
            if not re.fullmatch(_LABEL, label) or label in _TAKEN_LABELS:
                raise ValueError(f"{label!r} is no name for a label")
        declared = self._declared.setdefault(name, _Declared(name, kind, help, label_names))
        if (declared.kind, declared.label_names) != (kind, label_names):
            raise ValueError(f"{name} is declared as a {declared.kind} with the labels {declared.label_names}")
        return declared


class ScopedMetrics:
    """Implements `contracts.metrics.Metrics` for one owner."""

    def __init__(self, registry: MetricsRegistry, owner: str) -> None:
        self._registry, self._owner = registry, owner

    def counter(self, name: str, help: str, *, labels: Mapping[str, str] = {}) -> PlainCounter:
        counter: PlainCounter = self._registry.series(self._owner, name, "counter", help, labels, PlainCounter)
        return counter

    def gauge(self, name: str, help: str, read: Callable[[], float], *, labels: Mapping[str, str] = {}) -> None:
        self._registry.series(self._owner, name, "gauge", help, labels, lambda: read)

    def histogram(
        self, name: str, help: str, *, buckets: Sequence[float] = (), labels: Mapping[str, str] = {}
    ) -> PlainHistogram:
        bounds = tuple(buckets) or DURATION_BUCKETS_S
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"the buckets of {name} do not grow")
        histogram: PlainHistogram = self._registry.series(
            self._owner, name, "histogram", help, labels, lambda: PlainHistogram(bounds)
        )
        return histogram


def _label_value(value: object) -> str:
    """As text of a bounded length that can be written as UTF-8."""
    return str(value)[:MAX_LABEL_CHARS].encode(errors="replace").decode()


def _read(series: Any) -> float | None:
    """The value now; None when a gauge cannot be read."""
    if isinstance(series, PlainCounter):
        return float(series.value)
    try:
        return float(series())
    except Exception:  # what a gauge reads may be gone for the moment
        return None


def _as_collector(families: Sequence[Family]) -> Collector:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}

    def converted(family: Family) -> Metric:
        names = sorted({label for sample in family.samples for label in sample.labels})
        metric: Any = kinds[family.kind](family.name, family.help, labels=names)
        for sample in family.samples:
            values = [sample.labels.get(name, "") for name in names]
            if sample.histogram is not None:
                metric.add_metric(values, sample.histogram.buckets(), sample.histogram.total)
            else:
                metric.add_metric(values, sample.value)
        as_declared: Metric = metric
        return as_declared

    class Families(Collector):
        """Hands over what was read already."""

        def collect(self) -> Iterable[Metric]:
            return [converted(family) for family in families]

    return Families()
