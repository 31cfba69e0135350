"""What the node remembers of its boots, so that the next one can tell how the former ended.

One entry in the state store is rewritten as the boot goes on; a process that dies leaves it as it was. The journal is
for diagnosis: a state store that cannot be written keeps no node from starting, `problem` says so instead.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from magmobo.contracts.errors import MagError
from magmobo.contracts.stores import State
from magmobo.kernel.errors import describe

KEY = "boot"

Outcome = Literal["booting", "ready", "failed", "stopped"]


class BootEntry(Struct, frozen=True):
    """One run of the node. `seq` counts boots of this data folder from 1; `time_s` is wall time of its begin.

    `stage` is the one it was last seen in; `outcome` is `booting` until the boot ended, `ready` while the node serves.
    """

    seq: int
    time_s: float
    stage: str
    pid: int
    outcome: Outcome

    @property
    def died_booting(self) -> bool:
        """Whether the process went away in the middle of its boot; asked of a former run."""
        return self.outcome == "booting"

    @property
    def died_serving(self) -> bool:
        """Whether the process went away without a shutdown; asked of a former run."""
        return self.outcome == "ready"


class BootJournal:
    """The journal of this run. `former` is the entry of the run before, None when there was none that can be read."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._entry: BootEntry | None = None
        self.former: BootEntry | None = None
        self.problem = ""

    async def begin(self, *, time_s: float, stage: str, pid: int) -> BootEntry | None:
        """Note that a boot has begun; returns `former`. Never raises for the state store."""
        self.former = await self._read()
        seq = self.former.seq + 1 if self.former else 1
        await self._write(BootEntry(seq, time_s, stage, pid, "booting"))
        return self.former

    async def entered(self, stage: str) -> None:
        """Note that the boot has come to `stage`."""
        if self._entry is not None:
            await self._write(msgspec.structs.replace(self._entry, stage=stage))

    async def ended(self, outcome: Outcome) -> None:
        """Note how the boot, or the run, ended. Does nothing when it never began."""
        if self._entry is not None:
            await self._write(msgspec.structs.replace(self._entry, outcome=outcome))

    async def _read(self) -> BootEntry | None:
        try:
            entry = await self._state.get(KEY)
            return None if entry is None else msgspec.convert(entry.value, BootEntry)
        except MagError as error:
            self.problem = describe(error)
        except msgspec.ValidationError as error:
            self.problem = f"the entry of the former boot cannot be read: {error}"
        return None

    async def _write(self, entry: BootEntry) -> None:
        self._entry = entry
        try:
            await self._state.put(KEY, msgspec.to_builtins(entry))
        except MagError as error:
            self.problem = describe(error)
