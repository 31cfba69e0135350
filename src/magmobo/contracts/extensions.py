"""What operators say to the extension plane and hear from it, and what an extension may be allowed to do.

The CLI, the console and scripts rely on these names and fields. Boundary: declarations only; `magmobo.extensions`
answers. Source: CONTRACTS sections 4 to 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from magmobo.contracts.commands import Command


class Risk(StrEnum):
    """`LOW` is granted on install, `MEDIUM` asks, `HIGH` asks with a warning, `CRITICAL` asks an admin to type the
    name.
    """

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class ExtensionCapability(Struct, frozen=True):
    """One thing that an extension may be allowed. `implies` are had with it; `rate_per_minute` is the default limit on
    calls by the extension; `privileged` ones are audited one by one before they act, the others in batches.
    """

    name: str
    risk: Risk
    summary: str
    implies: tuple[str, ...] = ()
    rate_per_minute: int = 1000
    privileged: bool = False


_CATALOGUE = (
    ExtensionCapability("database.read", Risk.MEDIUM, "Read the tables it names.", (), 100),
    ExtensionCapability("database.write", Risk.HIGH, "Read and change the tables it names.", ("database.read",), 100),
    ExtensionCapability("database.schema", Risk.HIGH, "Keep tables of its own.", ("database.read",), 100),
    ExtensionCapability(
        "database.admin", Risk.CRITICAL, "Stand between storage and its operations.",
        ("database.schema", "database.write", "database.read"), 100, True,
    ),
    ExtensionCapability("api.register_endpoint", Risk.MEDIUM, "Answer requests below /ext/<id>/."),
    ExtensionCapability("api.intercept_request", Risk.HIGH, "See and change requests, refuse them."),
    ExtensionCapability("api.emit_events", Risk.LOW, "Publish events named after itself."),
    ExtensionCapability("realtime.register_channel", Risk.LOW, "Hear of channels that come into use."),
    ExtensionCapability("realtime.subscribe_events", Risk.MEDIUM, "Hear who subscribes and what is sent."),
    ExtensionCapability("realtime.broadcast", Risk.MEDIUM, "Send to the channels it names.", (), 100),
    ExtensionCapability("auth.audit_access", Risk.MEDIUM, "Hear of security events."),
    ExtensionCapability("auth.modify_roles", Risk.CRITICAL, "Change roles.", ("auth.audit_access",), 100, True),
    ExtensionCapability("auth.register_provider", Risk.CRITICAL, "Say who somebody is.", (), 100, True),
    ExtensionCapability("ui.register_widget", Risk.LOW, "Show a figure in the console."),
    ExtensionCapability("ui.register_panel", Risk.LOW, "Show a page in the console."),
    ExtensionCapability("network.outbound", Risk.HIGH, "Send requests to the hosts it names.", (), 100),
    ExtensionCapability("network.inbound", Risk.HIGH, "Take connections from outside.", (), 100),
    ExtensionCapability("filesystem.read", Risk.LOW, "Read files of its own folder."),
    ExtensionCapability("filesystem.write", Risk.MEDIUM, "Keep files in its own folder."),
    ExtensionCapability("filesystem.temp_only", Risk.LOW, "Keep files until it stops."),
    ExtensionCapability("system.background_jobs", Risk.MEDIUM, "Do work later."),
    ExtensionCapability("system.cron_schedule", Risk.MEDIUM, "Do work at times of its choice."),
    ExtensionCapability("system.metrics", Risk.LOW, "Publish figures."),
)  # fmt: skip
EXTENSION_CAPABILITIES: Mapping[str, ExtensionCapability] = {one.name: one for one in _CATALOGUE}
PLANNED_CAPABILITIES: Mapping[str, str] = {
    "auth.modify_roles": "changing roles for extensions is not built yet",
    "auth.register_provider": "providers of identity are not built yet",
    "network.inbound": "no extension listens; an endpoint (api.register_endpoint) takes requests",
    "ui.register_widget": "the console has no place for them yet",
    "ui.register_panel": "the console has no place for them yet",
}
"""Capabilities whose host operation does not exist: an extension that must have one is refused with this reason."""

ExtensionId = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*(?![\s\S])", max_length=40)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]
CapabilityName = Annotated[str, Meta(pattern=r"^[a-z]+\.[a-z_]+(?![\s\S])", max_length=60)]
Reason = Annotated[str, Meta(max_length=500)]
STAGE_CHUNK_BYTES = 45_000
MAX_PACKAGE_BYTES = 8 * 1_048_576


class GrantInfo(Struct, frozen=True):
    """What an extension asks for, or has. `state`: `granted`, `pending` (asked, not approved), `revoked`, `refused`
    (an optional one that is planned). `scope` names tables, hosts, channels, topics; `new`: the running version does
    not ask for it; `used`: calls since the node started; `hours`: only then, in UTC.
    """

    capability: str
    risk: str
    state: str
    reason: str
    optional: bool
    scope: Mapping[str, Sequence[str]]
    rate_per_minute: int
    expires_at: str = ""
    new: bool = False
    used: int = 0
    budget_per_day: int | None = None
    hours: str = ""


class ExtensionInfo(Struct, frozen=True):
    """One extension on a line. `state` is its place in the lifecycle, `health` separate from it; `pending_version`:
    an upgrade that waits for approval; `signer`: the id of a key, `signer_name` what the key was called when it was
    trusted; `tier`: the sandbox its worker runs in; `since` is RFC 3339 in UTC.
    """

    id: str
    name: str
    version: str
    state: str
    health: str
    risk: str
    signer: str
    tier: str
    since: str
    restarts: int
    detail: str = ""
    pending_version: str = ""
    signer_name: str = ""


class BindingInfo(Struct, frozen=True):
    """One thing that an extension takes part in: a `hook`, `event`, `endpoint`, `command` or `job`."""

    kind: str
    name: str
    detail: str


class LimitInfo(Struct, frozen=True):
    """How much of a capability that it has is used up; one that comes with another counts for itself. `refused`: calls
    that the rate or the budget kept back on the node that answers, since it started; `limited`: what keeps its calls
    back now, `budget`, `rate` or empty. With a budget, `spent_today` are the calls of this day (UTC) on all nodes, each
    of which tells of its own every second, and `renews_at` is when the day ends, RFC 3339 in UTC.
    """

    capability: str
    rate_per_minute: int
    refused: int = 0
    limited: str = ""
    budget_per_day: int | None = None
    spent_today: int = 0
    renews_at: str = ""


class WaitInfo(Struct, frozen=True):
    """What waits for a limit on what the extension may ask: a subscription (`event:NAME`) or a job (`job:NAME`), for
    one of `capabilities` (empty: the node does not know which), by its `budget` or `rate`, until then at the latest.
    `behind` are the events or jobs that wait with it. An operator who raises the limit, or takes the capability back,
    lets it go on at once.
    """

    handler: str
    capabilities: Sequence[str]
    kind: str
    until: str
    behind: int


class Widening(Struct, frozen=True):
    """More of a capability that an extension has: `kind` is `tables`, `hosts`, `channels`, `topics`,
    `rate_per_minute` or `endpoints`; `what` names it.
    """

    capability: str
    kind: str
    what: str


class UpgradeInfo(Struct, frozen=True):
    """What an upgrade would change. `added` and `removed` are capabilities, those that come with others too; `risk` is
    the highest of what is added or widened, empty when nothing is. A binding that is another one is both added and
    removed. `reads` and `writes` are as in `ExtensionDetail`, with what waits for approval granted.
    """

    version: str
    risk: str
    added: Sequence[str]
    widened: Sequence[Widening]
    removed: Sequence[str]
    bindings_added: Sequence[BindingInfo]
    bindings_removed: Sequence[BindingInfo]
    reads: Sequence[str]
    writes: Sequence[str]


class ExtensionDetail(Struct, frozen=True):
    """Everything the node knows about one extension. `reads` and `writes` are tables, in words; `backlog` are events
    that wait for it, `dead` those it could not take; `figures` are counts since the node started. `sha256` is the
    package that counts, `pending_sha256` that of an upgrade which waits for approval, or empty; `upgrade` is what that
    would change. `limits` are of each capability that it has; `waits` says what of it waits for one.
    """

    info: ExtensionInfo
    description: str
    author: str
    sha256: str
    grants: Sequence[GrantInfo]
    reads: Sequence[str]
    writes: Sequence[str]
    bindings: Sequence[BindingInfo]
    settings: Mapping[str, Any]
    versions: Sequence[str]
    backlog: int
    dead: int
    figures: Mapping[str, float]
    pending_sha256: str = ""
    limits: Sequence[LimitInfo] = ()
    waits: Sequence[WaitInfo] = ()
    upgrade: UpgradeInfo | None = None


class ExtensionPage(Struct, frozen=True):
    """Every extension of the node. `tier` is the best sandbox that this machine gives, `stopped`: the kill switch for
    all is on.
    """

    extensions: Sequence[ExtensionInfo]
    tier: str
    stopped: bool


class ListExtensions(Command, frozen=True, kw_only=True):
    """The extensions, a line each."""

    name = "extension:list"
    summary = "The extensions, a line each."
    capability = "kernel.status.read"
    reply = ExtensionPage


class ShowExtension(Command, frozen=True, kw_only=True):
    """One extension in detail: what it may do, takes part in, reads and writes."""

    name = "extension:show"
    summary = "One extension in detail."
    capability = "kernel.status.read"
    reply = ExtensionDetail
    id: ExtensionId


class Staged(Struct, frozen=True):
    """How much of a package has arrived; `complete`: all of it, with the digest that was announced."""

    received_bytes: int
    complete: bool


class StagePackage(Command, frozen=True, kw_only=True):
    """Bring a package to the node, a part at a time, in order; nothing is looked at before it is whole. `data` is
    base64 of at most `STAGE_CHUNK_BYTES`; a part that is there already is taken as said.
    """

    name = "extension:stage"
    summary = "Bring a package to the node."
    capability = "extension.install"
    reply = Staged
    sha256: Digest
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_PACKAGE_BYTES)]
    offset: Annotated[int, Meta(ge=0)]
    data: Annotated[str, Meta(max_length=60_000)]


class InstallExtension(Command, frozen=True, kw_only=True):
    """Install a staged package. Low-risk capabilities are granted; the others wait for `extension:approve`."""

    name = "extension:install"
    summary = "Install a package; it runs once it is approved and enabled."
    capability = "extension.install"
    audit_action = "extension.install"
    reply = ExtensionDetail
    dry_run = True
    sha256: Digest


class ApproveExtension(Command, frozen=True, kw_only=True):
    """Grant what an extension, or its pending upgrade, asks for. `confirm` repeats its id, which a critical capability
    takes. `capabilities` empty: all that it asks for. `sha256`: the package that was looked at; when another one waits
    by now, nothing is granted.
    """

    name = "extension:approve"
    summary = "Grant what an extension asks for."
    capability = "extension.approve"
    audit_action = "extension.approve"
    reply = ExtensionDetail
    dry_run = True
    id: ExtensionId
    capabilities: Sequence[CapabilityName] = ()
    confirm: Annotated[str, Meta(max_length=40)] = ""
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?(?![\s\S])")] = ""


class GrantCapability(Command, frozen=True, kw_only=True):
    """Grant one capability that the manifest asks for, perhaps less of it: fewer tables or hosts, a lower rate, for a
    time, at hours of the day (`09:00-17:00`, UTC).
    """

    name = "extension:grant"
    summary = "Grant one capability, perhaps less than asked."
    capability = "extension.approve"
    audit_action = "extension.grant"
    reply = ExtensionDetail
    id: ExtensionId
    wanted: CapabilityName
    scope: Mapping[str, Sequence[str]] = {}
    rate_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    budget_per_day: Annotated[int, Meta(ge=1)] | None = None
    ttl_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    hours: Annotated[str, Meta(max_length=11)] = ""
    confirm: Annotated[str, Meta(max_length=40)] = ""


class RevokeCapability(Command, frozen=True, kw_only=True):
    """Take a capability back; it counts from the next call on."""

    name = "extension:revoke"
    summary = "Take a capability back, at once."
    capability = "extension.revoke"
    audit_action = "extension.revoke"
    reply = ExtensionDetail
    id: ExtensionId
    wanted: CapabilityName


class EnableExtension(Command, frozen=True, kw_only=True):
    """Start an installed extension, also one that was disabled for its failures. `empty_files`: without the files that
    it kept on the node that is asked, which are removed for good; an enabled one is started anew there.
    """

    name = "extension:enable"
    summary = "Start an extension."
    capability = "extension.install"
    audit_action = "extension.enable"
    reply = ExtensionDetail
    dry_run = True
    id: ExtensionId
    empty_files: bool = False


class DisableExtension(Command, frozen=True, kw_only=True):
    """Let an extension finish what it does, then stop it until it is enabled again."""

    name = "extension:disable"
    summary = "Drain and stop an extension."
    capability = "extension.revoke"
    audit_action = "extension.disable"
    reply = ExtensionDetail
    dry_run = True
    id: ExtensionId


class KillExtensions(Command, frozen=True, kw_only=True):
    """The kill switch: end one extension, or all (`id` empty), at once and keep it stopped. `release` takes the switch
    for all back; what had been enabled starts again.
    """

    name = "extension:kill"
    summary = "Kill switch: end one extension or all, at once."
    capability = "extension.revoke"
    audit_action = "extension.kill"
    reply = ExtensionPage
    id: Annotated[str, Meta(max_length=40)] = ""
    release: bool = False


class UpgradeExtension(Command, frozen=True, kw_only=True):
    """Bring an extension to a staged package's version, beside the running one; it goes back by itself when the new
    one is not healthy. With new capabilities it waits for `extension:approve`, and the old one goes on.
    """

    name = "extension:upgrade"
    summary = "Upgrade an extension without a pause."
    capability = "extension.install"
    audit_action = "extension.upgrade"
    reply = ExtensionDetail
    dry_run = True
    sha256: Digest


class RollbackExtension(Command, frozen=True, kw_only=True):
    """Bring an extension back to the version before, its migrations undone."""

    name = "extension:rollback"
    summary = "Bring an extension back to the version before."
    capability = "extension.install"
    audit_action = "extension.rollback"
    reply = ExtensionDetail
    dry_run = True
    id: ExtensionId


class UninstallExtension(Command, frozen=True, kw_only=True):
    """Remove an extension. Its tables and values stay, unless `delete_data`, for a later install by the same signer."""

    name = "extension:uninstall"
    summary = "Remove an extension, with its data or without."
    capability = "extension.install"
    audit_action = "extension.uninstall"
    reply = ExtensionPage
    dry_run = True
    id: ExtensionId
    delete_data: bool = False


class ConfigureExtension(Command, frozen=True, kw_only=True):
    """Set settings of an extension, by its schema; secrets go to the vault. A null takes a setting back."""

    name = "extension:configure"
    summary = "Set settings of an extension."
    capability = "extension.install"
    audit_action = "extension.configure"
    reply = ExtensionDetail
    id: ExtensionId
    values: Mapping[str, Any]


class LogLine(Struct, frozen=True):
    """One line that an extension logged, or that the plane logged of it."""

    at: str
    level: str
    message: str
    fields: Mapping[str, Any]


class ExtensionLog(Struct, frozen=True):
    """Lines, oldest first; `cursor` goes into the next question."""

    lines: Sequence[LogLine]
    cursor: int


class ExtensionLogs(Command, frozen=True, kw_only=True):
    """What an extension logged since the node started, at most `limit` lines behind `after`; waits up to `wait_s`."""

    name = "extension:logs"
    summary = "What an extension logged."
    capability = "kernel.events.read"
    reply = ExtensionLog
    id: ExtensionId
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    wait_s: Annotated[float, Meta(ge=0, le=30)] = 0.0


class TrustedKey(Struct, frozen=True):
    """A key whose packages may be installed. `public` is base64 of the 32 raw bytes."""

    key_id: str
    name: str
    public: str
    added_at: str


class TrustedKeys(Struct, frozen=True):
    """Every trusted key."""

    keys: Sequence[TrustedKey]


class TrustKeys(Command, frozen=True, kw_only=True):
    """Show trusted keys; add one (`public` and `label`), or remove one (`remove`): what it signed is then disabled."""

    name = "extension:trust"
    summary = "Whose packages may be installed."
    capability = "extension.approve"
    audit_action = "extension.trust"
    reply = TrustedKeys
    public: Annotated[str, Meta(max_length=100)] = ""
    label: Annotated[str, Meta(max_length=80)] = ""
    remove: Annotated[str, Meta(max_length=64)] = ""


class DoctorLine(Struct, frozen=True):
    """One thing that the sandbox wants of this machine."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class SandboxReport(Struct, frozen=True):
    """`tier` is `S3` to `S0`; `lines` say what makes it that, and how to get more."""

    tier: str
    lines: Sequence[DoctorLine]


class DoctorExtensions(Command, frozen=True, kw_only=True):
    """What the sandbox can do on this machine, what is missing, and how to get it."""

    name = "extension:doctor"
    summary = "What the sandbox can do on this machine."
    capability = "kernel.status.read"
    reply = SandboxReport


class DeadLetter(Struct, frozen=True):
    """An event that an extension could not take after all its tries, or a gap in what it was told."""

    seq: int
    topic: str
    at: str
    tries: int
    error: str


class DeadLetters(Struct, frozen=True):
    """Oldest first; `waits` says what is not told of its events for now, and loses none."""

    letters: Sequence[DeadLetter]
    waits: Sequence[WaitInfo] = ()


class ExtensionEvents(Command, frozen=True, kw_only=True):
    """Dead letters of an extension. `retry`: deliver them again; `replay_s`: deliver everything of the last so many
    seconds again (at most seven days).
    """

    name = "extension:events"
    summary = "Events that an extension could not take, and replay."
    capability = "extension.install"
    audit_action = "extension.events"
    reply = DeadLetters
    id: ExtensionId
    retry: bool = False
    replay_s: Annotated[float, Meta(ge=0, le=604_800)] = 0.0


class RunResult(Struct, frozen=True):
    """What a command of an extension answered."""

    result: Any


class RunExtensionCommand(Command, frozen=True, kw_only=True):
    """Run one of the commands that an extension offers."""

    name = "extension:run"
    summary = "Run a command of an extension."
    capability = "extension.install"
    audit_action = "extension.run"
    reply = RunResult
    id: ExtensionId
    command: Annotated[str, Meta(max_length=60)]
    arguments: Mapping[str, Any] = {}


EXTENSION_COMMANDS: Sequence[type[Command]] = (
    ListExtensions, ShowExtension, StagePackage, InstallExtension, ApproveExtension, GrantCapability, RevokeCapability,
    EnableExtension, DisableExtension, KillExtensions, UpgradeExtension, RollbackExtension, UninstallExtension,
    ConfigureExtension, ExtensionLogs, TrustKeys, DoctorExtensions, ExtensionEvents, RunExtensionCommand,
)  # fmt: skip
