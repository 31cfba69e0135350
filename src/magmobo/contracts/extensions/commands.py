"""What operators say to the extension plane. Each names the capability that it takes and what it answers.

Boundary: sizes and shapes are bounded here, before anything looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from magmobo.contracts.commands import Command
from magmobo.contracts.extensions.replies import (
    DeadLetters,
    ExtensionDetail,
    ExtensionLog,
    ExtensionPage,
    RunResult,
    SandboxReport,
    Staged,
    TrustedKeys,
)

ExtensionId = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*(?![\s\S])", max_length=40)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]
CapabilityName = Annotated[str, Meta(pattern=r"^[a-z]+\.[a-z_]+(?![\s\S])", max_length=60)]
Reason = Annotated[str, Meta(max_length=500)]
STAGE_CHUNK_BYTES = 45_000
MAX_PACKAGE_BYTES = 8 * 1_048_576


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


class DoctorExtensions(Command, frozen=True, kw_only=True):
    """What the sandbox can do on this machine, what is missing, and how to get it."""

    name = "extension:doctor"
    summary = "What the sandbox can do on this machine."
    capability = "kernel.status.read"
    reply = SandboxReport


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
