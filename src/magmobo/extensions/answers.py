"""What the plane answers to operators: one method a command, named after its verb. No decision is made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magmobo.contracts.commands import Call
from magmobo.contracts.extensions import (
    ApproveExtension,
    ConfigureExtension,
    DeadLetters,
    DisableExtension,
    DoctorExtensions,
    EnableExtension,
    ExtensionDetail,
    ExtensionEvents,
    ExtensionLog,
    ExtensionLogs,
    ExtensionPage,
    GrantCapability,
    InstallExtension,
    KillExtensions,
    ListExtensions,
    RevokeCapability,
    RollbackExtension,
    RunExtensionCommand,
    RunResult,
    SandboxReport,
    ShowExtension,
    Staged,
    StagePackage,
    TrustedKeys,
    TrustKeys,
    UninstallExtension,
    UpgradeExtension,
)

if TYPE_CHECKING:
    from magmobo.extensions.journal import ExtensionJournal
    from magmobo.extensions.lifecycle.manager import Lifecycle
    from magmobo.extensions.plane import Plane
    from magmobo.extensions.staging import Staging


class Answers:
    """Answers of one node's plane."""

    def __init__(self, plane: Plane, lifecycle: Lifecycle, staging: Staging, journal: ExtensionJournal) -> None:
        self._plane, self._lifecycle, self._staging, self._journal = plane, lifecycle, staging, journal

    # ------------------------------------------------------------ looking

    async def list(self, command: ListExtensions, call: Call) -> ExtensionPage:
        return await self._lifecycle.list()

    async def show(self, command: ShowExtension, call: Call) -> ExtensionDetail:
        return await self._lifecycle.show(command.id)

    async def logs(self, command: ExtensionLogs, call: Call) -> ExtensionLog:
        await self._lifecycle.show(command.id)  # one that is not there has no log either
        return await self._journal.read(command.id, after=command.after, limit=command.limit, wait_s=command.wait_s)

    async def doctor(self, command: DoctorExtensions, call: Call) -> SandboxReport:
        return await self._plane.sandbox_report()

    # ------------------------------------------------------------ coming and going

    async def stage(self, command: StagePackage, call: Call) -> Staged:
        return self._staging.take(command)

    async def install(self, command: InstallExtension, call: Call) -> ExtensionDetail:
        data = self._staging.package(command.sha256)
        detail = await self._lifecycle.install(data, call.actor, trace_id=call.trace_id, dry_run=call.dry_run)
        if not call.dry_run:
            self._staging.drop(command.sha256)
        return detail

    async def upgrade(self, command: UpgradeExtension, call: Call) -> ExtensionDetail:
        data = self._staging.package(command.sha256)
        detail = await self._lifecycle.upgrade(data, call.actor, trace_id=call.trace_id, dry_run=call.dry_run)
        if not call.dry_run:
            self._staging.drop(command.sha256)
        return detail

    async def rollback(self, command: RollbackExtension, call: Call) -> ExtensionDetail:
        return await self._lifecycle.rollback(command.id, call.actor, dry_run=call.dry_run)

    async def uninstall(self, command: UninstallExtension, call: Call) -> ExtensionPage:
        return await self._lifecycle.uninstall(command.id, command.delete_data, call.actor, dry_run=call.dry_run)

    async def trust(self, command: TrustKeys, call: Call) -> TrustedKeys:
        return await self._lifecycle.trust(command.public, command.label, command.remove, call.actor)

    # ------------------------------------------------------------ on and off

    async def enable(self, command: EnableExtension, call: Call) -> ExtensionDetail:
        self._plane.check_on()
        return await self._lifecycle.enable(
            command.id, call.actor, empty_files=command.empty_files, dry_run=call.dry_run
        )

    async def disable(self, command: DisableExtension, call: Call) -> ExtensionDetail:
        return await self._lifecycle.disable(command.id, call.actor, dry_run=call.dry_run)

    async def kill(self, command: KillExtensions, call: Call) -> ExtensionPage:
        return await self._lifecycle.kill(command.id, command.release, call.actor)

    # ------------------------------------------------------------ rights and settings

    async def approve(self, command: ApproveExtension, call: Call) -> ExtensionDetail:
        return await self._lifecycle.approve(
            command.id,
            command.capabilities,
            command.confirm,
            call.actor,
            sha256=command.sha256,
            dry_run=call.dry_run,
        )

    async def grant(self, command: GrantCapability, call: Call) -> ExtensionDetail:
        return await self._lifecycle.grant(command, call.actor)

    async def revoke(self, command: RevokeCapability, call: Call) -> ExtensionDetail:
        return await self._lifecycle.revoke(command.id, command.wanted, call.actor)

    async def configure(self, command: ConfigureExtension, call: Call) -> ExtensionDetail:
        return await self._lifecycle.configure(command.id, command.values, call.actor)

    # ------------------------------------------------------------ work

    async def events(self, command: ExtensionEvents, call: Call) -> DeadLetters:
        await self._lifecycle.show(command.id)
        return await self._plane.dead_letters(command.id, retry=command.retry, replay_s=command.replay_s)

    async def run(self, command: RunExtensionCommand, call: Call) -> RunResult:
        return RunResult(await self._plane.run_command(command.id, command.command, command.arguments, call.deadline_s))
