"""The kernel's own figures, read from where they are counted when somebody asks. Names: CONTRACTS section 8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from magmobo.kernel.lifecycle import State
from magmobo.kernel.observe.metrics import Family, Kind, Sample

if TYPE_CHECKING:
    from magmobo.kernel.kernel import Kernel


class Figures:
    """Reads one kernel. `families` is asked at each scrape."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def families(self) -> Iterator[Family]:
        """What is to be shown of the node, its components, its buses and its stores."""
        yield from self._node()
        yield from self._components()
        yield from self._buses()
        yield from self._stores()
        yield from self._settings()

    def _node(self) -> Iterator[Family]:
        facts = self._kernel.facts
        yield _one("mag_build_info", "gauge", "The version that runs.", 1, version=facts.version)
        yield _one("mag_uptime_seconds", "gauge", "Since the last boot began.", facts.uptime_s)
        yield _one("mag_event_loop_lag_seconds", "gauge", "How late the event loop last answered.", facts.loop_lag_s)
        stages = [span for span in facts.timeline.spans if not span.component]
        yield _many(
            "mag_boot_seconds", "gauge", "Duration of each stage of the last boot.", "stage",
            {span.stage: span.ended_s - span.began_s for span in stages},
        )  # fmt: skip

    def _components(self) -> Iterator[Family]:
        slots = self._kernel.slots
        states = [
            Sample({"component": slot.name, "state": state}, float(slot.state is state))
            for slot in slots
            for state in State
        ]
        yield Family("mag_component_state", "gauge", "1 for the state that a component is in.", states)
        yield _many(
            "mag_component_restarts_total", "counter", "Starts of a component after its first.", "component",
            {slot.name: slot.restarts for slot in slots},
        )  # fmt: skip

    def _buses(self) -> Iterator[Family]:
        bus, commands = self._kernel.bus, self._kernel.services.commands
        counts = bus.counts()
        yield _many(
            "mag_bus_events_total", "counter", "Events emitted.", "topic",
            {topic: one.emitted for topic, one in counts.items()},
        )  # fmt: skip
        errors, shed = (sum(getattr(one, field) for one in counts.values()) for field in ("errors", "shed"))
        yield _one("mag_bus_handler_errors_total", "counter", "Calls of event handlers that failed.", errors)
        yield _one("mag_bus_shed_total", "counter", "Events that found a queue full.", shed)
        yield _one("mag_bus_queue_depth", "gauge", "Events that wait for handlers.", bus.queue_depth())
        results = [
            Sample({"command": name, "result": result}, float(count))
            for (name, result), count in commands.counts().items()
        ]
        yield Family("mag_commands_total", "counter", "Commands by result.", results)

    def _stores(self) -> Iterator[Family]:
        services = self._kernel.services
        decisions = services.gate.decisions()
        yield _many(
            "mag_security_decisions_total", "counter", "Decisions of the capability gate.", "result",
            {"allowed": decisions.allowed, "denied": decisions.denied, "breakglass": decisions.breakglass},
        )  # fmt: skip
        audit = services.audit
        yield _one("mag_audit_records_total", "counter", "Records made durable.", audit.records_total)
        yield _one(
            "mag_audit_write_errors_total", "counter", "Writes of the audit log that failed.", audit.write_errors_total
        )
        requests = [
            Sample({"layer": layer, "result": result}, float(count))
            for (layer, result), count in services.caches.counts.items()
        ]
        yield Family("mag_cache_requests_total", "counter", "Look-ups in the cache.", requests)

    def _settings(self) -> Iterator[Family]:
        reloader = self._kernel.settings.reloader_in_use
        if reloader is None:
            return
        yield _many("mag_config_reloads_total", "counter", "Reloads of the settings.", "result", reloader.counts)
        version = str(reloader.version)
        yield _one("mag_config_version_info", "gauge", "The version of the settings that counts.", 1, version=version)


def _one(name: str, kind: Kind, help: str, value: float, **labels: str) -> Family:
    return Family(name, kind, help, [Sample(labels, float(value))])


def _many(name: str, kind: Kind, help: str, label: str, values: Mapping[str, float]) -> Family:
    return Family(name, kind, help, [Sample({label: key}, float(value)) for key, value in values.items()])
