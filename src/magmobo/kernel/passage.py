"""Carries one plan out on the components of a node; what does not work out is taken back, wholly.

Boundary: `rollout` takes the components from one configuration to the other, this decides what follows from its
failures. Invariant: when `go` returned, the plan counts everywhere; when it raised, the former configuration does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence, Set

from msgspec import Struct

from magmobo.contracts.errors import ReloadRefused
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.config.loader import Config
from magmobo.kernel.errors import ReloadTakenBack, located
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.planning import Plan
from magmobo.kernel.rollout import DidNotComeUp, Refused, Rollout
from magmobo.kernel.slot import PhaseFailed


class Swaps(Struct, frozen=True):
    """Let the new configuration, or the former one, count for the node itself; they wait for nothing."""

    forward: Callable[[], None]
    back: Callable[[], None]


class Passage:
    """Of one plan, while nobody joins or leaves. `prepare_s`: deadline of a component to get ready."""

    def __init__(
        self, assembly: Assembly, plan: Plan, *, prepare_s: float, monotonic_s: Callable[[], float], log: QuietLog
    ) -> None:
        self._assembly, self._plan, self._log = assembly, plan, log
        self._prepare_s, self._monotonic_s = prepare_s, monotonic_s

    async def ask(self) -> None:
        """Only ask the components that would take it live. Raises: ReloadRefused, NotNow."""
        try:
            await self._rollout(self._plan.config, _nothing).ask()
        except Refused as refusal:
            raise _refused(refusal) from refusal.failures[0].cause

    async def go(self, swaps: Swaps, *, is_forced: bool) -> Set[str]:
        """All of it. Returns: the components that served when it began to count.

        is_forced: nobody may refuse, and who does not come up is left to the supervisor.
        Raises: ReloadRefused, ReloadTakenBack, NotNow; CancelledError when the node ends, then `back` was called if
            it had to be.
        """
        has_swapped = False

        def swap() -> None:
            nonlocal has_swapped
            has_swapped = True
            swaps.forward()

        forward = self._rollout(self._plan.config, swap, is_forced=is_forced)
        try:
            await forward.run()
        except Refused as refusal:
            raise _refused(refusal) from refusal.failures[0].cause
        except DidNotComeUp as failure:
            reasons = _reasons(failure.failures)
            if not is_forced:
                left = await self._back(forward, swaps)
                raise ReloadTakenBack(reasons, left) from failure.failures[0].cause
            self._log.error("components do not run with their former settings", reasons=reasons)
        except asyncio.CancelledError:
            if has_swapped:
                swaps.back()
            raise
        return forward.serving

    async def _back(self, forward: Rollout, swaps: Swaps) -> Sequence[str]:
        """Returns: the components that do not run with the former settings either."""
        self._log.warning("taking changed settings back", made_anew=list(forward.made_anew))
        back = self._rollout(self._plan.before, swaps.back, revive=forward.made_anew, is_forced=True)
        try:
            await back.run()
        except DidNotComeUp as failure:
            return [one.component for one in failure.failures]
        except asyncio.CancelledError:
            swaps.back()
            raise
        return ()

    def _rollout(
        self, config: Config, swap: Callable[[], None], *, revive: Collection[str] = (), is_forced: bool = False
    ) -> Rollout:
        return Rollout(
            self._assembly,
            config,
            self._plan.live,
            self._plan.anew,
            prepare_s=self._prepare_s,
            swap=swap,
            monotonic_s=self._monotonic_s,
            revive=revive,
            is_forced=is_forced,
        )


def _nothing() -> None:
    pass


def _refused(refusal: Refused) -> ReloadRefused:
    return ReloadRefused("; ".join(_reasons(refusal.failures)))


def _reasons(failures: Sequence[PhaseFailed]) -> list[str]:
    return [f"{one.component}: {_said(one.cause)}" for one in failures]


def _said(cause: BaseException) -> str:
    return cause.reason if isinstance(cause, ReloadRefused) else located(cause)
