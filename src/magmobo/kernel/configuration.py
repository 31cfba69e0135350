"""Answers to the commands about settings (`contracts/configuration.py`).

Boundary: translation between command and reloader, nothing else; the command bus has checked the right, the deadline
and the audit before a function here runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from magmobo.contracts import configuration as ops
from magmobo.contracts.commands import Call
from magmobo.kernel.config.overlay import recordable

if TYPE_CHECKING:
    from magmobo.kernel.commands.bus import ScopedCommands
    from magmobo.kernel.reloader import Reloader


class ConfigurationOperations:
    """The handlers of one kernel; `sections` are the types of those it has now. The reloader takes 15 ms to load, so
    it is asked for by the first command that needs it.
    """

    def __init__(self, reloader: Callable[[], Reloader], sections: Callable[[], Mapping[str, type[Struct]]]) -> None:
        self._reloader, self._sections = reloader, sections

    def register(self, commands: ScopedCommands) -> None:
        """Answer all of them on `commands`, until its owner is gone."""
        handlers: list[tuple[Any, Any]] = [
            (ops.ShowConfig, self._show),
            (ops.DiffConfig, self._diff),
            (ops.ReloadConfig, self._reload),
            (ops.RollbackConfig, self._rollback),
            (ops.ConfigHistory, self._history),
            (ops.UnsetConfig, self._unset),
        ]
        for command_type, handler in handlers:
            commands.handle(command_type, handler)
        commands.handle(ops.SetConfig, self._set, self._recorded)

    # ------------------------------------------------------------ looking

    async def _show(self, command: ops.ShowConfig, call: Call) -> ops.ConfigTree:
        await self._reloader().noted()
        return self._reloader().tree(command.prefix)

    async def _diff(self, command: ops.DiffConfig, call: Call) -> ops.ReloadPlan:
        return await self._reloader().diff(command.version, accept_removed=command.accept_removed)

    async def _history(self, command: ops.ConfigHistory, call: Call) -> ops.ConfigVersions:
        await self._reloader().noted()
        return self._reloader().history(command.limit)

    # ------------------------------------------------------------ changing

    async def _reload(self, command: ops.ReloadConfig, call: Call) -> ops.ReloadOutcome:
        return await self._reloader().reload(
            trigger="command", actor=call.actor, dry_run=call.dry_run, accept_removed=command.accept_removed
        )

    async def _rollback(self, command: ops.RollbackConfig, call: Call) -> ops.ReloadOutcome:
        return await self._reloader().rollback(command.version, actor=call.actor, dry_run=call.dry_run)

    async def _set(self, command: ops.SetConfig, call: Call) -> ops.ReloadOutcome:
        return await self._reloader().set(
            command.key, command.value, command.ttl_s, actor=call.actor, dry_run=call.dry_run
        )

    def _recorded(self, command: ops.SetConfig) -> ops.SetConfig:
        """Somebody may give a secret by its value. It is refused, but the intent is on record before."""
        return replace(command, value=recordable(command.key, command.value, self._sections()))

    async def _unset(self, command: ops.UnsetConfig, call: Call) -> ops.ReloadOutcome:
        return await self._reloader().unset(command.key, actor=call.actor, dry_run=call.dry_run)
