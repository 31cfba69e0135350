"""What is counted is what Prometheus reads, whatever the order of declarations and counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from magmobo.kernel.observe.metrics import MAX_SERIES, OTHER, Family, MetricsRegistry


def parsed(registry: MetricsRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The exposition as the official parser understands it."""
    _, text = registry.exposition()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


LABELS = st.dictionaries(st.just("kind"), st.text(max_size=150), min_size=1)


@given(st.lists(st.tuples(LABELS, st.integers(0, 1000)), max_size=30))
def test_every_count_is_shown_under_its_labels(counts: list[tuple[dict[str, str], int]]) -> None:
    registry = MetricsRegistry()
    expected: dict[str, int] = {}
    for labels, amount in counts:
        registry.scoped("a").counter("mag_things_total", "things", labels=labels).inc(amount)
        value = labels["kind"][:100]
        expected[value] = expected.get(value, 0) + amount
    shown = {labels[0][1]: value for (name, labels), value in parsed(registry).items() if name == "mag_things_total"}
    assert shown == expected


@given(st.lists(st.floats(0, 100), max_size=50))
def test_a_histogram_counts_every_value_once(values: list[float]) -> None:
    registry = MetricsRegistry()
    histogram = registry.scoped("a").histogram("mag_wait_seconds", "waits", buckets=(0.1, 1, 10))
    for value in values:
        histogram.observe(value)
    shown = parsed(registry)
    for bound in ("0.1", "1", "10"):
        assert shown["mag_wait_seconds_bucket", (("le", bound),)] == sum(value <= float(bound) for value in values)
    assert shown["mag_wait_seconds_count", ()] == len(values)
    assert shown["mag_wait_seconds_sum", ()] == pytest.approx(sum(values))


def test_label_values_do_not_multiply_without_a_bound() -> None:
    registry = MetricsRegistry()
    metrics = registry.scoped("a")
    for number in range(MAX_SERIES + 50):
        metrics.counter("mag_visits_total", "visits", labels={"path": str(number)}).inc()
    shown = parsed(registry)
    assert len(shown) <= MAX_SERIES + 1
    assert shown["mag_visits_total", (("path", OTHER),)] == 50


def test_asking_twice_gives_the_same_figure_and_an_owner_takes_its_own_away() -> None:
    registry = MetricsRegistry()
    first = registry.scoped("a").counter("mag_x_total", "x", labels={"of": "a"})
    assert registry.scoped("a").counter("mag_x_total", "x", labels={"of": "a"}) is first
    registry.scoped("b").counter("mag_x_total", "x", labels={"of": "b"}).inc(2)
    registry.close_owner("a")
    assert parsed(registry) == {("mag_x_total", (("of", "b"),)): 2.0}
    registry.close_owner("b")
    assert registry.families() == []


def _broken_collector() -> list[Family]:
    raise RuntimeError("its subsystem is not up")


def test_a_gauge_that_cannot_be_read_is_left_out() -> None:
    registry = MetricsRegistry()
    metrics = registry.scoped("a")
    metrics.gauge("mag_broken", "broken", lambda: 1 / 0)
    metrics.gauge("mag_well", "well", lambda: 7)
    registry.collect_from("a", _broken_collector)
    assert parsed(registry) == {("mag_well", ()): 7.0}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("things_total", {}),
        ("mag_things", {}),
        ("mag_Things_total", {}),
        ("mag_x_total", {"Bad": "1"}),
        ("mag_x_total", {"le\n": "1"}),
    ],
)
def test_names_that_do_not_fit_are_refused(name: str, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is no name"):
        MetricsRegistry().scoped("a").counter(name, "x", labels=labels)


def test_one_name_is_one_kind_with_one_set_of_labels() -> None:
    metrics = MetricsRegistry().scoped("a")
    metrics.counter("mag_x_total", "x", labels={"a": "1"})
    with pytest.raises(ValueError, match="is declared as"):
        metrics.counter("mag_x_total", "x")
    with pytest.raises(ValueError, match="do not grow"):
        metrics.histogram("mag_y", "y", buckets=(2, 1))
