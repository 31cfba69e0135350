"""Files and secrets of extensions that were uninstalled with their data: removed on each node of the database, by that
node.

The registry notes such a removal under a number, in the transaction in which the extension goes. A node looks behind
the last number that it saw whenever the registry changed, and at all of them when it starts: so one that was down, or
killed in the middle, removes what it has then. Boundary: outside of the turn of changes, because a folder may be made
to take long. Invariant: only a folder that the registry names as gone is removed; its name bears a random part, so
nobody who comes later is meant. Whose secrets are is known by that name, too (`ownsecrets`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from magmobo.extensions.lifecycle.leftovers import remove_tree
from magmobo.extensions.lifecycle.ports import Ports
from magmobo.extensions.lifecycle.records import Gone
from magmobo.extensions.lifecycle.store import Store

TRY_AGAIN_S = (0.2, 1.0, 5.0, 25.0, 60.0)
"""Pauses while a folder cannot be removed, or the database is away."""
REMOVING, STAYS = "removing_data", "data_stays"
"""What the audit log says: before files go, and when they could not be removed twice."""


class Removals:
    """Of one node. `place` says in a thread where files of an extension lie here; `note` puts on record what is done
    about them; `forget_secrets` forgets those that are here, and puts that on record.
    """

    def __init__(
        self,
        ports: Ports,
        store: Store,
        *,
        place: Callable[[Gone], Path],
        note: Callable[..., Awaitable[None]],
        forget_secrets: Callable[[Sequence[Gone]], Awaitable[None]],
    ) -> None:
        self._ports, self._store, self._place, self._note = ports, store, place, note
        self._forget_secrets = forget_secrets
        self._with_secrets: list[Gone] = []
        self._secrets_stay = False
        self._seen = 0
        self._left: dict[int, Gone] = {}
        self._tries: dict[int, int] = {}
        self._noted, self._noting = set[str](), asyncio.Lock()
        self._woken, self._rests = asyncio.Event(), asyncio.Event()
        self._rests.set()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Look, soon, whether there is something to remove."""
        self._woken.set()
        if self._task is None or self._task.done():
            self._task = self._ports.spawn(self._keep_looking(), "extension_removals")
        self._rests.clear()

    async def settled(self) -> None:
        """Return once all that is known was tried since the last `wake`."""
        await self._rests.wait()

    async def clear_beside(self, extension_id: str, mine: Path) -> None:
        """Remove folders beside `mine` that were the same extension's, known as gone or not; its worker comes now."""
        for folder in await asyncio.to_thread(lambda: list(mine.parent.glob(f"{extension_id}.*"))):
            if folder == mine:
                continue
            await self._note_once(extension_id, folder)
            try:
                await asyncio.to_thread(remove_tree, folder)
            except OSError as error:
                self._ports.log.warning("extensions.files_stay", error=str(error))

    async def stop(self) -> None:
        """Begin no more; the next start goes on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._rests.set()

    async def _keep_looking(self) -> None:
        try:
            await self._until_done()
        finally:
            self._rests.set()

    async def _until_done(self) -> None:
        fruitless = 0
        while True:
            self._woken.clear()
            all_done = await self._look()
            if self._woken.is_set():
                continue
            if all_done:
                return
            self._rests.set()
            try:
                async with asyncio.timeout(TRY_AGAIN_S[min(fruitless, len(TRY_AGAIN_S) - 1)]):
                    await self._woken.wait()
            except TimeoutError:
                fruitless += 1

    async def _look(self) -> bool:
        """Once: learn what is gone and remove what of it is here. Whether nothing is left to do."""
        try:
            for number, gone in await self._store.gone(behind=self._seen):
                self._seen, self._left[number] = number, gone
                self._with_secrets.append(gone)
            here = await asyncio.to_thread(self._those_here, dict(self._left)) if self._left else {}
        except Exception as error:  # of a database that is away, or of folders: both are looked at again
            self._ports.log.warning("extensions.removals_not_known", error=str(error)[:300])
            return False
        for number in self._left.keys() - here.keys():
            self._done(number)
        for number, folder in sorted(here.items()):
            await self._remove(number, self._left[number], folder)
        return await self._secrets_forgotten() and not self._left

    async def _secrets_forgotten(self) -> bool:
        if self._with_secrets:
            try:
                await self._forget_secrets(self._with_secrets)
            except Exception as error:  # of a vault that is away, or a log that takes no records
                if not self._secrets_stay:
                    self._ports.log.warning("extensions.secrets_stay", error=str(error)[:300])
                self._secrets_stay = True
                return False
        self._with_secrets, self._secrets_stay = [], False
        return True

    def _those_here(self, known: dict[int, Gone]) -> dict[int, Path]:
        placed = {number: self._place(gone) for number, gone in known.items()}
        return {number: folder for number, folder in placed.items() if os.path.lexists(folder)}

    async def _remove(self, number: int, gone: Gone, folder: Path) -> None:
        tries = self._tries[number] = self._tries.get(number, 0) + 1
        await self._note_once(gone.id, folder)
        try:
            await asyncio.to_thread(remove_tree, folder)
        except OSError as error:
            # The first time a worker may have been writing its last word.
            if tries == 2:
                await self._note(gone.id, STAYS, folder=folder.name, error=os.strerror(error.errno or 0))
        else:
            self._done(number)

    async def _note_once(self, extension_id: str, folder: Path) -> None:
        async with self._noting:  # two may be about to remove it, and neither may before it is on record
            if folder.name not in self._noted:
                await self._note(extension_id, REMOVING, folder=folder.name)
                self._noted.add(folder.name)

    def _done(self, number: int) -> None:
        self._left.pop(number, None)
        self._tries.pop(number, None)
