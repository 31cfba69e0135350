"""The vault as the kernel holds it: a driver in threads, and a mark in the state store that tells old files from new.

Boundary: nothing here is audited; `manager` and the command bus do that, before they call. Invariant: what is read and
changed is the newest vault that this node knows of. The mark is written after the file, so a crash between the two
leaves the file ahead, which is taken; a file behind its mark, another one, or none where one was, is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from magmobo.contracts.errors import MagError, StateUnavailable, VaultUnavailable
from magmobo.contracts.planes import SecretInfo
from magmobo.contracts.stores import State
from magmobo.kernel.vault.driver import Mark, VaultDriver, VaultSettings
from magmobo.kernel.vault.errors import VaultReplayed

T = TypeVar("T")
_MARK = "mark"


class SecretStore:
    """One vault.

    Args:
        state: scope `vault` of the state store, open before the first call here.
        on_secret: told every secret that is read or stored, so that it is hidden wherever something is written.
        on_problem: told what an operator should know.
    """

    def __init__(
        self,
        driver: VaultDriver,
        state: State,
        *,
        on_secret: Callable[[str], None],
        on_problem: Callable[[str], None],
    ) -> None:
        self._driver, self._state = driver, state
        self._on_secret, self._on_problem = on_secret, on_problem
        self._turn = asyncio.Lock()
        self._known: Mark | None = None
        self._under_way: set[asyncio.Task[Any]] = set()

    @property
    def name(self) -> str:
        """Of the driver."""
        return self._driver.name

    async def key_source(self) -> str:
        """Where the key comes from, for people."""
        return await asyncio.to_thread(lambda: self._driver.key_source)

    async def check(self) -> None:
        """See that the vault is the newest this node knows of. Without a vault it costs next to nothing.

        Raises: VaultReplayed, VaultUnavailable.
        """
        async with self._turn:
            await self._check()

    # ------------------------------------------------------------ looking

    async def read(self, name: str, version: int | None = None) -> tuple[str, int]:
        """See `VaultDriver.read`. Raises: SecretUnknown, VaultUnavailable."""
        text, found = await self._looked(partial(self._driver.read, name, version))
        self._on_secret(text)
        return text, found

    async def infos(self) -> Sequence[SecretInfo]:
        """See `VaultDriver.infos`. Raises: VaultUnavailable."""
        return await self._looked(self._driver.infos)

    # ------------------------------------------------------------ changing

    async def write(
        self, secrets: Mapping[str, str], *, pinned: Mapping[str, Collection[int]] = {}
    ) -> Sequence[SecretInfo]:
        """See `VaultDriver.write`. Raises: SecretRefused, VaultUnavailable."""
        for text in secrets.values():
            self._on_secret(text)
        return await self._changed(partial(self._driver.write, secrets, pinned=pinned))

    async def remove(self, name: str) -> None:
        """See `VaultDriver.remove`. Raises: SecretUnknown, VaultUnavailable."""
        await self._changed(partial(self._driver.remove, name))

    async def rekey(self, *, accept: bool = False) -> None:
        """See `VaultDriver.rekey`. `accept`: take the vault as it is, also an older one, another one, or none.

        Raises: RekeyRefused, VaultUnavailable.
        """
        await self._changed(self._rekey, accept=accept)

    async def reconfigure(self, settings: VaultSettings) -> None:
        """See `VaultDriver.reconfigure`. Raises: VaultUnavailable; then the settings before count on."""
        await self._changed(partial(self._driver.reconfigure, settings))

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, which goes on when the caller is cancelled; `close` waits for it."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """See every change to its end and let go of the vault."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        await asyncio.to_thread(self._driver.close)

    # ------------------------------------------------------------ inside

    async def _looked(self, look: Callable[[], T]) -> T:
        found = await asyncio.to_thread(look)
        await self.check()  # afterwards: what was found is of this vault, or of one before it
        return found

    async def _changed(self, change: Callable[[], T], *, accept: bool = False) -> T:
        return await self.to_the_end(self._change(change, accept=accept))

    async def _change(self, change: Callable[[], T], *, accept: bool) -> T:
        async with self._turn:
            if accept:
                self._known = await self._written_mark()
            else:
                await self._check()
            changed = await asyncio.to_thread(change)
            await self._advance(await asyncio.to_thread(self._driver.mark))
            return changed

    def _rekey(self) -> None:
        self._driver.rekey(above_generation=self._known.generation if self._known is not None else 0)

    async def _check(self) -> None:
        if self._driver.name != "local":
            return
        found = await asyncio.to_thread(self._driver.mark)
        if self._known is None or found != self._known:
            if problem := _difference(await self._written_mark(), found):
                raise VaultReplayed(problem)
            await self._advance(found)

    async def _written_mark(self) -> Mark | None:
        try:
            entry = await self._state.get(_MARK)
        except MagError as error:
            raise VaultUnavailable(f"the state store does not say which vault is the newest ({error})") from error
        return None if entry is None else msgspec.convert(entry.value, Mark)

    async def _advance(self, found: Mark | None) -> None:
        """Note which vault is the newest. Until that is possible again, one of just before would be taken for it."""
        if found is None or found == self._known:
            return
        try:
            await self._state.put(_MARK, msgspec.to_builtins(found))
        except StateUnavailable as error:
            self._on_problem(f"the newest state of the vault cannot be noted: {error}")
        self._known = found


def _difference(known: Mark | None, found: Mark | None) -> str:
    """What is wrong with a vault that has the mark `found`; empty when nothing is."""
    if known is None:
        return ""
    if found is None:
        return f"vault/vault.mag is gone; it was in its generation {known.generation}"
    if found.vault_id != known.vault_id:
        return "vault/vault.mag is another vault than the one this node wrote"
    if found.generation < known.generation:
        return f"vault/vault.mag is of generation {found.generation}, this node has seen {known.generation}"
    if found.generation == known.generation and found.seal != known.seal:
        return f"vault/vault.mag is another generation {found.generation} than the one this node has seen"
    return ""
