"""What a node that died left half done: led back, or to its end.

Callers hold the turn and the database's lock, so whoever was at it is gone. Each step can be done again. Which way:
`enabling` and `upgrading` go back to what counted before, `disabling` and `uninstalling` go on to their end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from magmobo.extensions.lifecycle.core import Core, reason_of
from magmobo.extensions.lifecycle.installing import Installing
from magmobo.extensions.lifecycle.records import Entry
from magmobo.extensions.lifecycle.states import UNDER_WAY, State
from magmobo.extensions.lifecycle.switching import Switching
from magmobo.extensions.lifecycle.versions import VersionChange

if TYPE_CHECKING:
    from magmobo.extensions.lifecycle.store import Connection

_BROKEN_OFF = "the node ended while this was under way"


class Recovery:
    """Leads back or to the end."""

    def __init__(self, core: Core, switching: Switching, installing: Installing, versions: VersionChange) -> None:
        self._core, self._switching, self._installing, self._versions = core, switching, installing, versions

    def is_needed(self) -> bool:
        """Whether the registry, as read last, shows something under way, or halted and not at rest."""
        entries = self._core.registry.entries.values()
        return any(
            entry.state in UNDER_WAY or (entry.halt_reason and entry.state is State.ENABLED) for entry in entries
        )

    async def recover(self, connection: Connection) -> None:
        """Everything that is under way and nobody's. One that cannot be led now stays for the next time."""
        for entry in list(self._core.registry.entries.values()):
            if entry.state not in UNDER_WAY:
                continue
            try:
                await self._one(connection, entry)
            except Exception as error:  # of the database, of rows, of storage: the others are to be led too
                self._core.ports.log.warning(
                    "extension.not_recovered", extension=entry.id, state=entry.state, error=reason_of(error)
                )
            else:
                await self._core.note(entry.id, "recovered", state=entry.state)
        await self._core.refresh(connection)
        await self._switching.settle_halted(connection)

    async def _one(self, connection: Connection, entry: Entry) -> None:
        match entry.state:
            case State.UPGRADING:
                await self._versions.lead_back(connection, entry, _BROKEN_OFF)
            case State.UNINSTALLING:
                await self._installing.finish_uninstalling(connection, entry)
            case State.DISABLING:
                await self._switching.finish_disabling(connection, entry)
            case _:
                async with connection.transaction():
                    await self._core.store.move(
                        connection, entry, entry.resume or State.DISABLED, resume_state="", detail=_BROKEN_OFF
                    )
