"""The commands that every node answers, whatever components it runs, and the shapes of their answers.

The CLI, the console and scripts rely on these names and fields; adding is fine, renaming breaks them. Their JSON Schema
is published in docs/schemas. Boundary: declarations only; `kernel/operations.py` answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from magmobo.contracts.audit import AuditRecord
from magmobo.contracts.commands import Command
from magmobo.contracts.configuration import CONFIGURATION
from magmobo.contracts.planes import ComponentStatus, NodeStatus
from magmobo.contracts.vaults import VAULT

ComponentName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
# As Python and packages name things, so that the module that is run is not masked in the record of it. The look-ahead
# is the end: `$` would let a line break pass.
ComponentSource = Annotated[
    str, Meta(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*(:[A-Za-z_][A-Za-z0-9_.]*)?(?![\s\S])")
]
Limit = Annotated[int, Meta(ge=1, le=1000)]


class KernelStatus(Command, frozen=True, kw_only=True):
    """How the node and its components are."""

    name = "kernel:status"
    summary = "State of the node and its components."
    capability = "kernel.status.read"
    reply = NodeStatus


class BlameEntry(Struct, frozen=True):
    """One span of the boot. `at_s` counts from the begin of the boot; `critical`: on the path that decided its length.

    `component` is empty for a stage, `phase` is `configure`, `boot` or `start`, or empty.
    """

    stage: str
    component: str
    phase: str
    at_s: float
    duration_s: float
    critical: bool


class BootReport(Struct, frozen=True):
    """Where the last boot spent its time. `interrupted`: the boot before it did not end, so it ran again."""

    boot_s: float
    started_at: str
    interrupted: bool
    entries: Sequence[BlameEntry]


class KernelBlame(Command, frozen=True, kw_only=True):
    """The timeline of the last boot and its critical path."""

    name = "kernel:blame"
    summary = "Where the boot spent its time."
    capability = "kernel.status.read"
    reply = BootReport


class EventPage(Struct, frozen=True):
    """Events as CloudEvents 1.0 objects, oldest first. `cursor` goes into the next question; `missed` were forgotten
    before they could be told.
    """

    events: Sequence[Mapping[str, Any]]
    cursor: int
    missed: int


class KernelEvents(Command, frozen=True, kw_only=True):
    """Recent events behind `after` (0: whatever is remembered), at most `limit`; waits up to `wait_s` for the first."""

    name = "kernel:events"
    summary = "Recent events of the node."
    capability = "kernel.events.read"
    reply = EventPage
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Limit = 100
    pattern: Annotated[str, Meta(max_length=200)] = "**"
    wait_s: Annotated[float, Meta(ge=0, le=30)] = 0.0


class KernelReset(Command, frozen=True, kw_only=True):
    """Shut every component down and boot the node again, in place."""

    name = "kernel:reset"
    summary = "Unboot and boot the running node in place."
    capability = "kernel.node.reset"
    audit_action = "kernel.reset"
    reply = NodeStatus
    dry_run = True


class Stopping(Struct, frozen=True):
    """The node has begun to drain; the connection that asked is closed when it is gone."""

    pid: int


class NodeStop(Command, frozen=True, kw_only=True):
    """Drain and end."""

    name = "node:stop"
    summary = "Stop the node."
    capability = "kernel.node.stop"
    audit_action = "kernel.stop"
    reply = Stopping


class ComponentList(Struct, frozen=True):
    """The components in the order in which they come up."""

    components: Sequence[ComponentStatus]


class ListComponents(Command, frozen=True, kw_only=True):
    """The components, a line each."""

    name = "component:list"
    summary = "The components, a line each."
    capability = "kernel.status.read"
    reply = ComponentList


class RestartNote(Struct, frozen=True):
    """One restart: when, by `supervisor` or `operator`, why, and how long the component was away."""

    at: str
    by: str
    reason: str
    away_s: float


class HealthNote(Struct, frozen=True):
    """One check of a component as it was seen last."""

    name: str
    status: str
    detail: str


class ComponentDetail(Struct, frozen=True):
    """Everything the node knows about one component. `budget_left`: restarts the supervisor may still try now."""

    status: ComponentStatus
    version: str
    source: str
    provides: Sequence[str]
    needs: Sequence[str]
    wants: Sequence[str]
    after: Sequence[str]
    needed_by: Sequence[str]
    capabilities: Sequence[str]
    checks: Sequence[HealthNote]
    caused_by: str
    restarts: Sequence[RestartNote]
    budget_left: int
    tasks: int
    subscriptions: int


class ShowComponent(Command, frozen=True, kw_only=True):
    """One component in detail."""

    name = "component:show"
    summary = "One component in detail."
    capability = "kernel.status.read"
    reply = ComponentDetail
    component: ComponentName


class RestartComponent(Command, frozen=True, kw_only=True):
    """Drain, stop and start one component; its restart budget begins anew. Nobody else is restarted."""

    name = "component:restart"
    summary = "Restart one component; no other is touched."
    capability = "kernel.component.restart"
    audit_action = "component.restart"
    reply = ComponentStatus
    dry_run = True
    component: ComponentName


class StopComponent(Command, frozen=True, kw_only=True):
    """Drain and stop one component."""

    name = "component:stop"
    summary = "Stop one component until it is started again."
    capability = "kernel.component.stop"
    audit_action = "component.stop"
    reply = ComponentStatus
    dry_run = True
    component: ComponentName


class StartComponent(Command, frozen=True, kw_only=True):
    """Start one component that is stopped, failed or quarantined; its restart budget begins anew."""

    name = "component:start"
    summary = "Start a component that does not run."
    capability = "kernel.component.start"
    audit_action = "component.start"
    reply = ComponentStatus
    dry_run = True
    component: ComponentName


class DisableComponent(Command, frozen=True, kw_only=True):
    """Stop one component and keep it from starting, over restarts of the node too."""

    name = "component:disable"
    summary = "Keep a component from starting, for good."
    capability = "kernel.component.stop"
    audit_action = "component.disable"
    reply = ComponentStatus
    dry_run = True
    component: ComponentName


class EnableComponent(Command, frozen=True, kw_only=True):
    """Undo `component:disable` and start the component."""

    name = "component:enable"
    summary = "Let a disabled component start again."
    capability = "kernel.component.start"
    audit_action = "component.enable"
    reply = ComponentStatus
    dry_run = True
    component: ComponentName


class RegisterComponent(Command, frozen=True, kw_only=True):
    """Add a component to the running node, by `module:Class` or the name of an installed entry point, and start it."""

    name = "component:register"
    summary = "Add a component to the running node."
    capability = "kernel.component.register"
    audit_action = "component.register"
    reply = ComponentStatus
    source: ComponentSource


class UnregisterComponent(Command, frozen=True, kw_only=True):
    """Stop one component and take it off the running node; refused while another needs it."""

    name = "component:unregister"
    summary = "Take a component off the running node."
    capability = "kernel.component.register"
    audit_action = "component.unregister"
    reply = ComponentList
    component: ComponentName


class GraphEdge(Struct, frozen=True):
    """`consumer` comes up after `provider`. `kind` is `needs`, `wants` or `after`; `protocol` is empty for `after`."""

    consumer: str
    provider: str
    kind: str
    protocol: str


class Graph(Struct, frozen=True):
    """Who needs whom; `levels` come up one after the other. `dot` is the same for Graphviz."""

    levels: Sequence[Sequence[str]]
    edges: Sequence[GraphEdge]
    dot: str


class ComponentGraph(Command, frozen=True, kw_only=True):
    """The dependency graph."""

    name = "component:graph"
    summary = "Who needs whom, as JSON or DOT."
    capability = "kernel.status.read"
    reply = Graph


class AuditPage(Struct, frozen=True):
    """Records, oldest first; `cursor` goes into the next question. `left_out` counts records of summed-up calls of
    extensions that are not among them, `behind` is the number behind which records were looked at.
    """

    records: Sequence[AuditRecord]
    cursor: int
    left_out: int = 0
    behind: int = 0


class AuditTail(Command, frozen=True, kw_only=True):
    """Records behind `after`; -1 means the last `limit`. Waits up to `wait_s` for the first.

    Summed-up calls of extensions and the log's own checkpoints are left out without `everything`, unless `action` names
    them. `action` is one, or the beginning of some and `*`; `extension` is who did it or to whom it was done.
    """

    name = "audit:tail"
    summary = "The last records of the audit log."
    capability = "kernel.audit.read"
    reply = AuditPage
    after: Annotated[int, Meta(ge=-1)] = -1
    limit: Limit = 50
    wait_s: Annotated[float, Meta(ge=0, le=30)] = 0.0
    action: Annotated[str, Meta(max_length=100)] = ""
    extension: Annotated[str, Meta(max_length=40)] = ""
    everything: bool = False


class DiagnosticsPart(Struct, frozen=True):
    """One file of the archive: its name and its text, already without secrets."""

    name: str
    text: str


class Diagnostics(Struct, frozen=True):
    """What only the running node can tell for `mag diagnostics:dump`."""

    parts: Sequence[DiagnosticsPart]


class DiagnosticsDump(Command, frozen=True, kw_only=True):
    """Status, configuration, events, metrics, stacks of tasks and threads, versions, boot timeline and audit head."""

    name = "diagnostics:dump"
    summary = "One archive for whoever helps you, without secrets."
    capability = "kernel.diagnostics.dump"
    audit_action = "diagnostics.dump"
    reply = Diagnostics


class CommandInfo(Struct, frozen=True):
    """One command that this node answers, with the JSON Schema of its fields and of its answer."""

    name: str
    summary: str
    capability: str
    audited: bool
    dry_run: bool
    request: Mapping[str, Any]
    reply: Mapping[str, Any]


class CommandCatalogue(Struct, frozen=True):
    """Every command of this node."""

    commands: Sequence[CommandInfo]


class ListCommands(Command, frozen=True, kw_only=True):
    """The commands of this node, with their schemas."""

    name = "kernel:commands"
    summary = "Every command of the node, with its schema."
    capability = "kernel.status.read"
    reply = CommandCatalogue


OPERATIONS: Sequence[type[Command]] = (
    KernelStatus, KernelBlame, KernelEvents, KernelReset, NodeStop, ListComponents, ShowComponent, RestartComponent,
    StopComponent, StartComponent, DisableComponent, EnableComponent, RegisterComponent, UnregisterComponent,
    ComponentGraph, AuditTail, DiagnosticsDump, ListCommands, *CONFIGURATION, *VAULT,
)  # fmt: skip
