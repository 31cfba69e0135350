"""The figures of a real node, read as Prometheus reads them: by its own parsers, over the operators' listener."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from tests.integration.node.harness import mag, up

from magmobo.contracts.component import Component, Context
from magmobo.contracts.events import Event
from magmobo.testing.harness import running_kernel

STAGES = {"pre_boot", "kernel_init", "post", "component_load", "service_start", "ready"}
OF_THE_KERNEL = {
    "mag_build_info",
    "mag_boot_seconds",
    "mag_uptime_seconds",
    "mag_component_state",
    "mag_component_restarts",
    "mag_event_loop_lag_seconds",
    "mag_bus_events",
    "mag_bus_handler_seconds",
    "mag_bus_handler_errors",
    "mag_bus_shed",
    "mag_bus_queue_depth",
    "mag_cache_requests",
    "mag_security_decisions",
    "mag_audit_records",
    "mag_audit_write_errors",
}
"""CONTRACTS section 8, what a node has whatever components it runs; the parsers take `_total` off a counter."""


class Figures:
    """One scrape."""

    def __init__(self, families: Iterable[Any]) -> None:
        self.families = list(families)
        self.names = {family.name for family in self.families}
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Of one series."""
        return float(self._values[name, tuple(sorted(labels.items()))])

    def by(self, name: str, label: str) -> Mapping[str, float]:
        """All series of a name by one label."""
        return {dict(labels)[label]: value for (known, labels), value in self._values.items() if known == name}


def scrape(url: str, accept: str = "") -> tuple[str, str]:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as reply:
        return reply.headers["content-type"], reply.read().decode()


def test_what_prometheus_reads_of_a_node(tmp_path: Path) -> None:
    with up(cwd=tmp_path, components="Steady Sick") as node:
        url = str(node.ready()["urls"]["metrics"])
        first = Figures(plain_text(scrape(url)[1]))
        assert set(first.by("mag_boot_seconds", "stage")) == STAGES
        assert 0 < sum(first.by("mag_boot_seconds", "stage").values()) < 60
        assert len(first.by("mag_build_info", "version")) == 1
        assert first.value("mag_component_state", component="steady", state="running") == 1
        assert first.value("mag_component_state", component="steady", state="failed") == 0
        assert first.by("mag_component_restarts_total", "component") == {"steady": 0, "sick": 0}
        assert first.by("mag_bus_events_total", "topic")["system.ready"] == 1

        assert mag("component:restart", "steady", cwd=tmp_path).returncode == 0
        assert mag("component:stop", "sick", cwd=tmp_path).returncode == 0
        assert mag("--role", "viewer", "component:stop", "steady", cwd=tmp_path).returncode == 6
        second = Figures(plain_text(scrape(url)[1]))
        assert second.by("mag_component_restarts_total", "component") == {"steady": 1, "sick": 0}
        assert second.value("mag_component_state", component="sick", state="stopped") == 1
        assert second.value("mag_component_state", component="sick", state="running") == 0
        started = "component.started"
        assert second.by("mag_bus_events_total", "topic")[started] == 3
        assert second.value("mag_commands_total", command="component:restart", result="ok") == 1
        assert second.value("mag_commands_total", command="component:stop", result="denied") == 1
        assert second.value("mag_security_decisions_total", result="denied") == 1
        assert second.value("mag_audit_records_total") >= 5
        assert second.value("mag_uptime_seconds") > first.value("mag_uptime_seconds")


def test_both_formats_are_well_formed_and_say_the_same(tmp_path: Path) -> None:
    with up(cwd=tmp_path) as node:
        url = str(node.ready()["urls"]["metrics"])
        plain_type, plain = scrape(url)
        open_type, text = scrape(url, "application/openmetrics-text; version=1.0.0")
        assert plain_type.startswith("text/plain")
        assert open_type.startswith("application/openmetrics-text")
        names = Figures(open_metrics(text)).names
        assert names == Figures(plain_text(plain)).names
        assert names >= OF_THE_KERNEL - {"mag_bus_handler_seconds"}, "that one is sampled"


def test_names_that_others_make_up_are_no_labels(tmp_path: Path) -> None:
    with up(cwd=tmp_path) as node:
        url = str(node.ready()["urls"]["metrics"])
        for number in range(5):
            assert mag("component:show", f"made_up_{number}", cwd=tmp_path).returncode != 0
        text = scrape(url)[1]
        assert "made_up" not in text
        assert Figures(plain_text(text)).value("mag_commands_total", command="component:show", result="failed") == 5


class Counted(Event, frozen=True, gc=False):
    topic = "test.counted"


class Counting(Component):
    """Declares figures as a careless author would: in `start`, one of them by a name that the kernel shows."""

    name = "counting"

    def __init__(self, context: Context) -> None:
        self._context, self._starts = context, 0

    async def start(self) -> None:
        self._starts += 1
        starts, metrics = self._starts, self._context.metrics
        metrics.gauge("mag_counting_incarnation", "which start made it", lambda: starts)
        metrics.gauge("mag_uptime_seconds", "a name of the kernel's", lambda: -1.0)
        metrics.counter("mag_counting_strange_total", "strange labels", labels={"of": 'a"b\\c\nd\udc80'}).inc()
        self._context.bus.on("test.counted", lambda _: None)


async def test_the_throughput_of_the_bus_and_its_handlers() -> None:
    async with running_kernel(Counting) as kernel:
        for _ in range(1_000):
            kernel.bus.emit(Counted())
        await asyncio.sleep(0)
        figures = read(kernel)
        assert figures.by("mag_bus_events_total", "topic")["test.counted"] == 1_000
        timed = figures.value("mag_bus_handler_seconds_count", topic="test.counted")
        assert 1 <= timed <= 1_000 / 64 + 1, "a sample"
        assert figures.value("mag_bus_queue_depth") == 0
        assert figures.names >= OF_THE_KERNEL


async def test_what_components_declare_cannot_spoil_the_page() -> None:
    async with running_kernel(Counting) as kernel:
        await kernel.restart_component("counting")
        figures = read(kernel)
        assert figures.value("mag_counting_incarnation") == 2, "the gauge of the last start is read"
        assert figures.value("mag_uptime_seconds") >= 0
        [label] = figures.by("mag_counting_strange_total", "of")
        assert label.startswith('a"b\\c\nd')
        await kernel.stop_component("counting")
        await kernel.unregister_component("counting")
        assert "mag_counting_incarnation" not in read(kernel).names


async def test_a_reset_keeps_what_was_counted_and_shows_the_last_boot() -> None:
    async with running_kernel(Counting) as kernel:
        kernel.bus.emit(Counted())
        await kernel.reset()
        figures = read(kernel)
        assert figures.by("mag_bus_events_total", "topic")["test.counted"] == 1
        assert figures.by("mag_bus_events_total", "topic")["system.ready"] == 2
        assert set(figures.by("mag_boot_seconds", "stage")) == STAGES


def read(kernel: Any) -> Figures:
    """The page of a kernel, by the stricter of the two parsers."""
    _, text = kernel.services.metrics.exposition("application/openmetrics-text; version=1.0.0")
    return Figures(open_metrics(text.decode()))
