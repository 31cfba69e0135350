"""Decides about each call of an extension: is it granted, at this hour, inside the budget of the day, under the rate?

It reads `Installed.grants` each time, so what an operator takes back counts from the next call. Boundary: decides and
puts on record; does nothing itself. Invariant: what is denied is on record, what is privileged is on record before it
happens. Source: CONTRACTS section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from magmobo.contracts.audit import Audit
from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.extensions import EXTENSION_CAPABILITIES
from magmobo.contracts.metrics import Metrics
from magmobo.extensions.gate.allowance import Allowance
from magmobo.extensions.gate.denials import Denials
from magmobo.extensions.gate.errors import BudgetSpent, GateRefused, NotGranted, OutsideHours, RateLimited
from magmobo.extensions.gate.hours import DAY_S, is_within
from magmobo.extensions.gate.ledger import Ledger, Tally
from magmobo.extensions.gate.limits import Limit, Use
from magmobo.extensions.gate.outbox import AuditOutbox, actor_of
from magmobo.extensions.gate.refusals import Refusals
from magmobo.extensions.installed import ApiMethod, Caller, Grant, Installed

FREE_RATE_PER_MINUTE = 1000
"""Of each method that takes no capability."""
Spending = Mapping[tuple[str, str], int]
"""Extension and capability -> calls of one day."""


class Gatekeeper:
    """One a node. Use it on the node's loop."""

    def __init__(self, clock: Clock, audit: Audit, bus: Bus, metrics: Metrics) -> None:
        self._clock, self._audit = clock, audit
        self._outbox = AuditOutbox(audit)
        self._ledger = Ledger(self._outbox, metrics)
        self._denials = Denials(clock, self._outbox, bus, metrics)
        self._refusals = Refusals(clock, self._outbox, self._ledger)
        self._allowances: dict[tuple[str, str], Allowance] = {}

    def allow(self, caller: Caller, method: ApiMethod) -> None:
        """Let this call through and count it. Raises: NotGranted, OutsideHours, BudgetSpent, RateLimited."""
        try:
            self._decide(caller.extension, method)
        except GateRefused as refused:
            if refused.retry_s > 0:
                self._allowance(caller.extension.id, refused.capability).refuse(self._clock.monotonic_s())
            self.denied(caller.extension, refused.capability, method.name, refused.kind)
            raise

    def _decide(self, extension: Installed, method: ApiMethod) -> None:
        name = method.capability or method.name
        rate_per_minute, time_s = FREE_RATE_PER_MINUTE, self._clock.time_s()
        allowance = self._allowance(extension.id, name)
        if method.capability:
            grant = extension.grants.get(name)
            if grant is None or _is_over(grant, time_s):
                raise NotGranted(extension.id, name)
            if not is_within(grant.hours, time_s):
                raise OutsideHours(extension.id, name)
            if grant.budget_per_day is not None:
                allowance.has_budget = True
                if allowance.is_spent(grant.budget_per_day, time_s):
                    raise BudgetSpent(extension.id, name, DAY_S - time_s % DAY_S)
            rate_per_minute = grant.rate_per_minute
        retry_s = allowance.retry_s(rate_per_minute, self._clock.monotonic_s())
        if retry_s > 0:
            raise RateLimited(extension.id, name, retry_s)
        allowance.take(time_s)

    def holds(self, extension: Installed, capability: str) -> bool:
        """Whether the capability is granted now; counts and records nothing."""
        grant = extension.grants.get(capability)
        if grant is None:
            return False
        if grant.expires_at_s is None and not grant.hours:
            return True
        time_s = self._clock.time_s()
        return not _is_over(grant, time_s) and is_within(grant.hours, time_s)

    def limit(self, extension_id: str, grants: Mapping[str, Grant], name: str) -> Limit | None:
        """What keeps calls of this capability, or of a method that takes none, back now; None where they are let
        through, and where the capability is not had, because no time changes that. Counts and records nothing.
        """
        allowance, grant = self._allowances.get((extension_id, name)), grants.get(name)
        if allowance is None or (grant is None and name in EXTENSION_CAPABILITIES):
            return None
        time_s, rate_per_minute = self._clock.time_s(), FREE_RATE_PER_MINUTE
        if grant is not None:
            if _is_over(grant, time_s) or not is_within(grant.hours, time_s):
                return None
            if grant.budget_per_day is not None and allowance.is_spent(grant.budget_per_day, time_s):
                return Limit(name, BudgetSpent.kind, DAY_S - time_s % DAY_S)
            rate_per_minute = grant.rate_per_minute
        retry_s = allowance.retry_s(rate_per_minute, self._clock.monotonic_s())
        return Limit(name, RateLimited.kind, retry_s) if retry_s > 0 else None

    def met(self, extension: Installed, since_s: float) -> Sequence[Limit]:
        """Limits that kept back calls of it since this moment (of the clock that never goes back), and still do."""
        names = [
            name
            for (owner, name), one in self._allowances.items()
            if owner == extension.id and one.refused_s >= since_s
        ]
        return [one for name in names if (one := self.limit(extension.id, extension.grants, name)) is not None]

    def use(self, extension_id: str, name: str) -> Use:
        """How much of a capability this node knows to be used."""
        allowance = self._allowances.get((extension_id, name))
        if allowance is None:
            return Use()
        return Use(allowance.refused, allowance.spent(int(self._clock.time_s() // DAY_S)))

    async def before(self, caller: Caller, method: ApiMethod) -> None:
        """Put a privileged call on record, which then may happen. Raises: AuditUnavailable."""
        capability = EXTENSION_CAPABILITIES.get(method.capability)
        if capability is not None and capability.privileged:
            said = {"capability": method.capability, "method": method.name, "path": list(caller.chain)}
            await self._audit.record("extension.call", actor=actor_of(caller.extension.id), payload=said)

    def denied(self, extension: Installed, capability: str, method: str, reason: str) -> None:
        """A call was denied, here or by whoever knows what it wants (a table, a host, a channel). `reason` is one of a
        few words, `method` a name that the node knows.
        """
        self._denials.note(extension.id, capability, method, reason)

    def refused(self, extension: Installed, method: str) -> None:
        """A call of this method, which the node knows, was not made: it was denied, or its arguments were wrong."""
        self._refusals.note(extension.id, method)

    def tally(self, extension_id: str, kind: str, name: str) -> Tally:
        """Where to count calls of this name; keep it."""
        return self._ledger.tally(extension_id, kind, name)

    def used(self, extension_id: str) -> Mapping[str, int]:
        """Calls that were let through since the node started, by capability or free method."""
        return {name: one.used for (owner, name), one in self._allowances.items() if owner == extension_id}

    def unsaid(self, day: int) -> Spending:
        """Calls of this day by capabilities with a budget that other nodes were not told of."""
        counted = {key: one.unsaid(day) for key, one in self._allowances.items() if one.has_budget}
        return {key: calls for key, calls in counted.items() if calls}

    def said(self, day: int, told: Spending) -> None:
        """Other nodes can hear of these now."""
        for key, calls in told.items():
            if (allowance := self._allowances.get(key)) is not None:
                allowance.said(day, calls)

    def heard(self, day: int, totals: Spending) -> None:
        """What all nodes together let through today, this one's included as far as it said so; of others nothing."""
        for extension_id, capability in totals:
            self._allowance(extension_id, capability).has_budget = True
        for key, allowance in self._allowances.items():
            if allowance.has_budget:
                allowance.heard(day, totals.get(key, 0))

    def forget(self, extension_id: str) -> None:
        """The extension is gone, its rates and budgets too."""
        for key in [key for key in self._allowances if key[0] == extension_id]:
            del self._allowances[key]
        self._ledger.forget(extension_id)
        self._denials.forget(extension_id)
        self._refusals.forget(extension_id)

    async def close(self) -> None:
        """Put on record what was only counted so far."""
        self._ledger.flush()
        self._denials.flush()
        self._refusals.flush()
        await self._outbox.drained()

    def _allowance(self, extension_id: str, name: str) -> Allowance:
        found = self._allowances.get((extension_id, name))
        if found is None:
            found = self._allowances[(extension_id, name)] = Allowance()
        return found


def _is_over(grant: Grant, time_s: float) -> bool:
    return grant.expires_at_s is not None and grant.expires_at_s <= time_s
