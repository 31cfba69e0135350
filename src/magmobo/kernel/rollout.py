"""One passage of a node's components from one configuration to another, in two phases.

Ask whoever takes it live; stop whoever must be made anew; then, in one turn of the loop, let the new configuration
count everywhere; then make the stopped ones anew. Invariants: before that turn every component that serves has the old
settings, behind it every one has the new ones; after a refusal nothing has changed; each component's turn is held from
the question to the answer, so that no restart comes in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence, Set
from typing import Any

from magmobo.kernel import twophase
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.config.loader import Config
from magmobo.kernel.errors import describe
from magmobo.kernel.lifecycle import State
from magmobo.kernel.slot import PhaseFailed, Slot
from magmobo.kernel.supervision.errors import CommitFailed, NotNow
from magmobo.kernel.turns import hold_together


class Refused(Exception):
    """Components cannot get ready; nothing has changed. `failures` are in the order in which they come up."""

    def __init__(self, failures: Sequence[PhaseFailed]) -> None:
        super().__init__(failures)
        self.failures = failures


class DidNotComeUp(Exception):
    """The new configuration counts, but these components do not run with it."""

    def __init__(self, failures: Sequence[PhaseFailed]) -> None:
        super().__init__(failures)
        self.failures = failures


class Rollout:
    """Use it once, while nobody joins or leaves (`Board.undisturbed`).

    Args:
        config: what is to count.
        live: keys, relative to its section, by component that takes them while it serves.
        anew: components that are made anew.
        prepare_s: deadline of a component to get ready.
        swap: lets `config` count for the node itself; called in the turn in which it counts for the components.
        revive: components that are to run at the end although they do not now.
        is_forced: there is no way back: who refuses is made anew, who does not come up is left to the supervisor.
    """

    def __init__(
        self,
        assembly: Assembly,
        config: Config,
        live: Mapping[str, Set[str]],
        anew: Collection[str],
        *,
        prepare_s: float,
        swap: Callable[[], None],
        monotonic_s: Callable[[], float],
        revive: Collection[str] = (),
        is_forced: bool = False,
    ) -> None:
        self._assembly, self._config, self._changed = assembly, config, live
        self._anew_names, self._revive, self._is_forced = anew, revive, is_forced
        self._prepare_s, self._swap, self._monotonic_s = prepare_s, swap, monotonic_s
        self._held: list[Slot] = []
        self._live: list[Slot] = []
        self._anew: dict[str, Slot] = {}
        self._idle: list[Slot] = []
        self._prepared: list[Slot] = []
        self._away_since_s: dict[str, float] = {}
        self.serving: Set[str] = frozenset()
        """Components that served when the new configuration began to count, or were made anew for it."""

    @property
    def made_anew(self) -> Collection[str]:
        """Names of those that are, or were to be, made anew."""
        return tuple(self._anew)

    async def ask(self) -> None:
        """Only ask those that would take it live. Raises: Refused, NotNow."""
        await self._hold()
        try:
            await self._prepare()
        finally:
            await self._end()

    async def run(self) -> None:
        """Go through all of it. Raises: Refused, NotNow; DidNotComeUp."""
        await self._hold()
        try:
            await self._prepare()
            await self._take_off()
            lost = self._commit()
            await self._abort(lost)
            self._let_go(slot for slot in self._held if slot.name not in self._anew)
            await self._bring_up()
        finally:
            await self._end()

    async def _end(self) -> None:
        try:
            await self._abort(self._prepared)
        finally:  # a second cancellation ends the hooks, but no component may stay held
            self._let_go(self._held)

    # ------------------------------------------------------------ before it counts

    async def _hold(self) -> None:
        names = {*self._changed, *self._anew_names, *self._revive}
        slots = [slot for slot in self._assembly.board.in_order() if slot.name in names]
        await hold_together([slot.turns for slot in slots])
        self._held = slots
        for slot in slots:
            if slot.state is not State.RUNNING and slot.name not in self._revive:
                self._idle.append(slot)
            elif slot.state is State.RUNNING and slot.name in self._changed:
                self._live.append(slot)
            else:
                self._anew[slot.name] = slot

    async def _prepare(self) -> None:
        outcomes = await _all(self._prepare_one(slot) for slot in self._live)
        failures = [outcome for outcome in outcomes if isinstance(outcome, PhaseFailed)]
        if failures and not self._is_forced:
            raise Refused(failures)
        for failure in failures:
            slot = self._assembly.board.slot(failure.component)
            slot.log.warning("cannot take its former settings, it is made anew", error=describe(failure.cause))
            self._anew[slot.name] = slot

    async def _prepare_one(self, slot: Slot) -> None:
        await twophase.prepare(slot, self._config.section(slot.name), self._changed[slot.name], self._prepare_s)
        self._prepared.append(slot)

    async def _abort(self, slots: list[Slot]) -> None:
        waiting, slots[:] = slots[:], []
        await _all(twophase.abort(slot, self._prepare_s) for slot in waiting)

    async def _take_off(self) -> None:
        stop_s = self._assembly.supervisor.deadlines.stop_s
        for level in reversed(self._levels()):
            self._away_since_s |= {slot.name: self._monotonic_s() for slot in level}
            await _all(slot.take_off(stop_s) for slot in level)

    # ------------------------------------------------------------ the turn in which it counts

    def _commit(self) -> list[Slot]:
        """Waits for nothing, so that nobody ever sees a part of it. Returns whom the reload lost meanwhile."""
        slots = self._assembly.board.slots.values()
        self.serving = {slot.name for slot in slots if slot.state is State.RUNNING} | self._anew.keys()
        prepared, self._prepared = self._prepared, []
        lost = [slot for slot in prepared if slot.state is not State.RUNNING]
        self._swap()
        broken = [
            (slot, error)
            for slot in prepared
            if slot not in lost and (error := twophase.commit(slot, self._config.section(slot.name))) is not None
        ]
        for slot in (*lost, *self._anew.values(), *self._idle):
            slot.tenant.take(self._config.section(slot.name))
        for slot, error in broken:
            slot.log.error("commit_reload failed", error=describe(error), exc_info=error)
            self._away_since_s[slot.name] = self._monotonic_s()
            self._anew[slot.name] = slot
            slot.fail(CommitFailed(slot.name, error))
        return lost

    # ------------------------------------------------------------ behind it

    async def _bring_up(self) -> None:
        failures: list[PhaseFailed] = []
        for level in self._levels():
            outcomes = await _all(self._bring_up_one(slot) for slot in level)
            self._let_go(level)
            failures += [outcome for outcome in outcomes if isinstance(outcome, PhaseFailed)]
            if failures and not self._is_forced:
                raise DidNotComeUp(failures)
        for failure in failures:
            self._assembly.supervisor.failed(failure.component)
        if failures:
            raise DidNotComeUp(failures)

    async def _bring_up_one(self, slot: Slot) -> None:
        try:
            await slot.bring_up(self._assembly.supervisor.deadlines)
        except NotNow as error:
            raise PhaseFailed(slot.name, "start", error) from error
        self._assembly.supervisor.replaced(slot.name, since_s=self._away_since_s[slot.name])

    def _levels(self) -> list[list[Slot]]:
        levels = self._assembly.board.registry.levels
        return [[self._anew[name] for name in level if name in self._anew] for level in levels]

    def _let_go(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            slot.turns.let_go()


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    """Await all of it together; what is not PhaseFailed is raised when everything has ended."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None and not isinstance(outcome, PhaseFailed):
            raise outcome
    return outcomes
