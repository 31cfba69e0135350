"""Answers to the commands that every node has (`contracts/operations.py`).

Boundary: translation between command and kernel, nothing else; the command bus has checked the right, the deadline and
the audit before a function here runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magmobo.contracts import operations as ops
from magmobo.contracts.commands import Call, Commands
from magmobo.contracts.planes import ComponentStatus, NodeStatus

if TYPE_CHECKING:
    from magmobo.kernel.kernel import Kernel


class Operations:
    """The handlers of one kernel; `node:stop` is for whoever owns the process."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._look = kernel, kernel.inspection

    def register(self, commands: Commands) -> None:
        """Answer all of them on `commands`, until its owner is gone."""
        handlers: list[tuple[Any, Any]] = [
            (ops.KernelStatus, self._status),
            (ops.KernelBlame, self._blame),
            (ops.KernelEvents, self._events),
            (ops.KernelReset, self._reset),
            (ops.ListComponents, self._list),
            (ops.ShowComponent, self._show),
            (ops.RestartComponent, self._restart),
            (ops.StopComponent, self._stop),
            (ops.StartComponent, self._start),
            (ops.DisableComponent, self._disable),
            (ops.EnableComponent, self._enable),
            (ops.RegisterComponent, self._register),
            (ops.UnregisterComponent, self._unregister),
            (ops.ComponentGraph, self._graph),
            (ops.AuditTail, self._audit_tail),
            (ops.DiagnosticsDump, self._diagnostics),
            (ops.ListCommands, self._commands),
        ]
        for command_type, handler in handlers:
            commands.handle(command_type, handler)

    # ------------------------------------------------------------ looking

    async def _status(self, command: ops.KernelStatus, call: Call) -> NodeStatus:
        return self._look.status()

    async def _blame(self, command: ops.KernelBlame, call: Call) -> ops.BootReport:
        return self._look.boot_report()

    async def _events(self, command: ops.KernelEvents, call: Call) -> ops.EventPage:
        return await self._look.events(command.after, command.limit, command.pattern, wait_s=command.wait_s)

    async def _list(self, command: ops.ListComponents, call: Call) -> ops.ComponentList:
        return ops.ComponentList(self._look.status().components)

    async def _show(self, command: ops.ShowComponent, call: Call) -> ops.ComponentDetail:
        return self._look.component(command.component)

    async def _graph(self, command: ops.ComponentGraph, call: Call) -> ops.Graph:
        return self._look.graph()

    async def _commands(self, command: ops.ListCommands, call: Call) -> ops.CommandCatalogue:
        return self._look.catalogue()

    async def _audit_tail(self, command: ops.AuditTail, call: Call) -> ops.AuditPage:
        from magmobo.kernel.audit.view import Wanted  # for who asks

        wanted = Wanted(command.action, command.extension, command.everything)
        return await self._look.audit_page(wanted, command.after, command.limit, wait_s=command.wait_s)

    async def _diagnostics(self, command: ops.DiagnosticsDump, call: Call) -> ops.Diagnostics:
        return await self._look.diagnostics()

    # ------------------------------------------------------------ steering

    async def _reset(self, command: ops.KernelReset, call: Call) -> NodeStatus:
        if not call.dry_run:
            await self._kernel.reset()
        return self._look.status()

    async def _restart(self, command: ops.RestartComponent, call: Call) -> ComponentStatus:
        if not call.dry_run:
            await self._kernel.restart_component(command.component, by="operator")
        return self._look.component(command.component).status

    async def _stop(self, command: ops.StopComponent, call: Call) -> ComponentStatus:
        if not call.dry_run:
            await self._kernel.stop_component(command.component)
        return self._look.component(command.component).status

    async def _start(self, command: ops.StartComponent, call: Call) -> ComponentStatus:
        if not call.dry_run:
            await self._kernel.start_component(command.component)
        return self._look.component(command.component).status

    async def _disable(self, command: ops.DisableComponent, call: Call) -> ComponentStatus:
        if not call.dry_run:
            await self._kernel.disable_component(command.component)
        return self._look.component(command.component).status

    async def _enable(self, command: ops.EnableComponent, call: Call) -> ComponentStatus:
        if not call.dry_run:
            await self._kernel.enable_component(command.component)
        return self._look.component(command.component).status

    async def _register(self, command: ops.RegisterComponent, call: Call) -> ComponentStatus:
        name = await self._kernel.register_source(command.source)
        return self._look.component(name).status

    async def _unregister(self, command: ops.UnregisterComponent, call: Call) -> ops.ComponentList:
        await self._kernel.unregister_component(command.component)
        return ops.ComponentList(self._look.status().components)
