"""Questions about a node that change nothing: status, boot, graph, events, audit log, figures, diagnostics.

Boundary: reads what the kernel and its services hold. What is only asked for by operators is imported when they ask.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from magmobo.contracts.clock import Clock
from magmobo.kernel import view
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.lifecycle import State
from magmobo.kernel.selftest import Finding
from magmobo.kernel.services import Services
from magmobo.kernel.stages import Stages
from magmobo.kernel.surroundings import Surroundings
from magmobo.kernel.timeline import Timeline

if TYPE_CHECKING:
    from magmobo.contracts.operations import (
        AuditPage,
        BootReport,
        CommandCatalogue,
        ComponentDetail,
        Diagnostics,
        EventPage,
        Graph,
    )
    from magmobo.contracts.planes import NodeStatus
    from magmobo.kernel.audit.view import Wanted
    from magmobo.kernel.diagnostics import Sources
    from magmobo.kernel.kernel import Kernel

_EVENTS_IN_DIAGNOSTICS = 100_000
_AUDIT_PAUSE_S = 0.1


class Facts(Struct, frozen=True):
    """What a kernel knows of its present boot."""

    instance_id: str
    environment: str
    version: str
    began_at_s: float
    sources: Mapping[str, str]
    notices: Sequence[str]
    uptime_s: float
    timeline: Timeline
    findings: Sequence[Finding]
    former_died_booting: bool
    loop_lag_s: float


def facts_of(stages: Stages, around: Surroundings, *, sources: Mapping[str, str], notices: Sequence[str]) -> Facts:
    """What is known of the boot that `stages` went through last."""
    former = stages.journal.former
    return Facts(
        instance_id=around.instance_id,
        environment=around.environment,
        version=around.version,
        began_at_s=stages.began_at_s,
        sources=sources,
        notices=notices,
        uptime_s=around.clock.monotonic_s() - stages.began_s,
        timeline=around.timeline,
        findings=stages.findings,
        former_died_booting=former is not None and former.died_booting,
        loop_lag_s=stages.loop_lag_s,
    )


class Inspection:
    """Answers about one kernel."""

    def __init__(self, kernel: Kernel, bus: EventBus, services: Services, clock: Clock) -> None:
        self._kernel, self._bus, self._services, self._clock = kernel, bus, services, clock
        self._own_urls: dict[str, str] = {}

    def offer(self, label: str, url: str) -> None:
        """Name an address of the node's own in its status, behind those of its components."""
        self._own_urls[label] = url

    def status(self) -> NodeStatus:
        """How the node is, now. Never raises."""
        from magmobo.contracts.planes import NodeStatus

        facts, slots, hide = self._kernel.facts, self._kernel.slots, self._services.known.hidden
        announcements = [view.announcement_of(slot) for slot in slots if slot.state is State.RUNNING]
        return NodeStatus(
            instance_id=facts.instance_id,
            state=self._kernel.state,
            environment=facts.environment,
            version=facts.version,
            uptime_s=facts.uptime_s,
            components=[
                structs.replace(one, detail=hide(one.detail))
                for one in (self._kernel.assembly.statuses() if slots else ())
            ],
            urls={label: hide(url) for one in announcements for label, url in one.urls.items()} | self._own_urls,
            examples=[hide(example) for one in announcements for example in one.examples],
            notices=[
                hide(notice)
                for notice in (*self._own_notices(facts), *(each for one in announcements for each in one.notices))
            ],
        )

    def _own_notices(self, facts: Facts) -> list[str]:
        advice = [f"{one.name}: {one.detail}. {one.remedy}" for one in facts.findings if not one.ok]
        members = self._kernel.assembly.notices() if self._kernel.slots else []
        return [*self._services.problems, *self._kernel.settings.notices(), *members, *facts.notices, *advice]

    def component(self, name: str) -> ComponentDetail:
        """Everything about one component. Raises: UnknownComponent."""
        source = self._kernel.facts.sources.get(name, "")
        return self._kernel.assembly.detail(name, source)

    def graph(self) -> Graph:
        """Who needs whom."""
        return self._kernel.assembly.board.registry.graph()

    def boot_report(self) -> BootReport:
        """Where the last boot spent its time."""
        from magmobo.kernel.blame import boot_report

        facts = self._kernel.facts
        return boot_report(
            facts.timeline,
            started_at_s=facts.began_at_s,
            providers=self._kernel.assembly.board.registry.edges,
            interrupted=facts.former_died_booting,
        )

    def catalogue(self) -> CommandCatalogue:
        """Every command that this node answers."""
        return self._services.commands.catalogue()

    async def events(self, after: int, limit: int, pattern: str, *, wait_s: float) -> EventPage:
        """Remembered events as CloudEvents; waits up to `wait_s` for the first. Raises: PatternRefused."""
        from magmobo.contracts.operations import EventPage
        from magmobo.kernel.bus.cloudevents import operator_view

        history = self._bus.history
        found, cursor, missed = history.page(after, limit, pattern)
        ends_at_s = self._clock.monotonic_s() + wait_s
        while not found and (left_s := ends_at_s - self._clock.monotonic_s()) > 0:
            await history.wait(cursor, left_s)
            found, cursor, more = history.page(cursor, limit, pattern)
            missed += more
        source = f"/mag/{self._kernel.facts.instance_id}"
        mask = self._services.known.value
        return EventPage([operator_view(envelope, source, mask) for _, envelope in found], cursor, missed)

    async def audit_page(self, wanted: Wanted, after: int, limit: int, *, wait_s: float) -> AuditPage:
        """Records of the audit log; waits up to `wait_s` for the first. Raises: AuditUnavailable."""
        from magmobo.contracts.operations import AuditPage

        audit, left_out = self._services.audit, 0
        ends_at_s = self._clock.monotonic_s() + wait_s
        while True:
            found = await audit.look(wanted, after_seq=after, limit=limit)
            after, left_out = found.cursor, left_out + found.left_out
            left_s = ends_at_s - self._clock.monotonic_s()
            if found.records or left_s <= 0:
                return AuditPage(found.records, after, left_out, found.behind)
            if await audit.wait_beyond(after, left_s):
                await asyncio.sleep(_AUDIT_PAUSE_S)  # what comes all the time is looked at together

    async def diagnostics(self) -> Diagnostics:
        """Everything for who helps from afar, without secrets; the search for those runs in a thread."""
        from magmobo.kernel import diagnostics

        parts = diagnostics.collect(self._sources())
        return await asyncio.to_thread(diagnostics.finished, parts, self._kernel.config)

    def _sources(self) -> Sources:
        import threading

        from magmobo.kernel.bus.cloudevents import operator_view
        from magmobo.kernel.diagnostics import Sources

        facts, history, audit = self._kernel.facts, self._bus.history, self._services.audit
        page, _cursor, _missed = history.page(0, _EVENTS_IN_DIAGNOSTICS, "**")
        return Sources(
            status=self.status,
            boot=self.boot_report,
            components=lambda: [self.component(slot.name) for slot in self._kernel.slots],
            config=self._kernel.config,
            events=lambda: [
                operator_view(envelope, f"/mag/{facts.instance_id}", lambda value, _: value) for _, envelope in page
            ],
            metrics=self._metrics_text,
            audit=lambda: {"head_seq": audit.head_seq, "problems": list(audit.problems)},
            facts={
                "version": facts.version,
                "python": sys.version,
                "platform": platform.platform(),
            },
            tasks=asyncio.all_tasks,
            threads=threading.enumerate,
        )

    def _metrics_text(self) -> str:
        return self._services.metrics.exposition()[1].decode()
