"""Which of the known components take part in a start, and why the others do not.

A pure function from what is known, what was asked for on the command line or in the configuration, and what an
operator disabled for good. What cannot do without a component that is left out is left out with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from magmobo.contracts.component import Component
from magmobo.kernel.errors import RegistryError, SelectionImpossible, UnknownComponent, describe
from magmobo.kernel.registry import Declaration, Registry, declare_all


class Cause(StrEnum):
    """Why a component does not take part."""

    WITHOUT = "without"
    ONLY = "only"
    SAFE = "safe"
    DISABLED = "disabled"
    NEEDS = "needs"
    UNFIT = "unfit"


class LeftOut(Struct, frozen=True):
    """Why one component does not take part; `reason` is a line for people.

    `because_of` names the component without which it cannot, for `Cause.NEEDS`.
    """

    cause: Cause
    reason: str
    because_of: str = ""


class Selection(Struct, frozen=True):
    """Who takes part: the members of `registry`, in which the others are idle. `left_out`: name -> why."""

    registry: Registry
    left_out: Mapping[str, LeftOut]

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of those that take part."""
        return tuple(self.registry.declarations)

    def notices(self) -> list[str]:
        """What the user did not ask for in so many words: a line each."""
        lines = []
        for culprit in dict.fromkeys(one.because_of for one in self.left_out.values() if one.because_of):
            victims = [name for name, one in self.left_out.items() if one.because_of == culprit]
            why = self.left_out[culprit].reason
            verb, they = ("does", "it needs") if len(victims) == 1 else ("do", "they need")
            lines.append(f"{_listed(victims)} {verb} not start: {they} {culprit} ({why})")
        for name, one in self.left_out.items():
            if one.cause is Cause.DISABLED:
                lines.append(f"{name} is disabled: `mag component:enable {name}` lets it start again")
            elif one.cause is Cause.UNFIT:
                lines.append(f"{name} does not start: {one.reason}")
        return lines


def select(
    component_types: Sequence[type[Component]],
    provided: Sequence[type] = (),
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    disabled: Collection[str] = (),
    optional: Collection[str] = (),
    missing: Collection[str] = (),
    safe: bool = False,
) -> Selection:
    """Choose the components of a start.

    Args:
        provided: Protocols served from outside.
        only: these and what they need, nothing else; empty: everything.
        without: these do not start, nor does what cannot do without them.
        disabled: as `without`, set for good by an operator; names that are not known any more do not matter.
        optional: components that nobody asked for by name; one that does not fit is left out instead of refused.
        missing: names of components that are installed and could not be loaded; they may be in `without`.
        safe: none at all, whatever else is said.
    Raises: UnknownComponent for a name in `only` or `without`; SelectionImpossible when something in `only` needs what
        was left out; RegistryError of its kinds when the rest does not fit together.
    """
    known = declare_all(component_types)
    for name in () if safe else (*only, *(name for name in without if name not in missing)):
        if name not in known:
            raise UnknownComponent(name, tuple(known))
    choice = _Choice(known, provided, frozenset(only))
    choice.leave_out(without, LeftOut(Cause.WITHOUT, "left out"))
    choice.leave_out(disabled, LeftOut(Cause.DISABLED, "disabled"))
    if safe:
        choice.leave_out(known, LeftOut(Cause.SAFE, "safe mode"))
    elif only:
        wanted = choice.closure()
        choice.leave_out([name for name in known if name not in wanted], LeftOut(Cause.ONLY, "not asked for"))
    return choice.settled(frozenset(optional) - frozenset(only), insist=not safe)


class _Choice:
    def __init__(self, known: Mapping[str, Declaration], provided: Sequence[type], only: frozenset[str]) -> None:
        self._known, self._provided, self._only = known, provided, only
        self._out: dict[str, LeftOut] = {}

    def leave_out(self, names: Iterable[str], why: LeftOut) -> None:
        """The first reason stays."""
        self._out |= {name: why for name in names if name in self._known and name not in self._out}

    def closure(self) -> set[str]:
        """What `only` names, and what that needs."""
        found: set[str] = set()
        ahead = list(self._only)
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += [other for needed in self._hard_needs(name) for other in self._providers(needed)]
        return found

    def settled(self, optional: frozenset[str], *, insist: bool) -> Selection:
        while True:
            self._drop_dependents()
            if insist:
                self._check_asked_for()
            kept = [one.component_type for name, one in self._known.items() if name not in self._out]
            idle = [self._known[name].component_type for name in self._out]
            try:
                return Selection(Registry(kept, self._provided, idle), dict(self._out))
            except RegistryError as error:
                unfit = [name for name in self._known if name in error.involved and name in optional - self._out.keys()]
                if not unfit:
                    raise
                self._out[unfit[-1]] = LeftOut(Cause.UNFIT, describe(error))

    def _drop_dependents(self) -> None:
        """Leave out what needs a Protocol whose every known provider is left out, until that is nobody."""
        changed = True
        while changed:
            changed = False
            for name in self._known:
                if name not in self._out and (culprit := self._missed_by(name)):
                    because_of = self._out[culprit].because_of or culprit
                    self._out[name] = LeftOut(Cause.NEEDS, f"it needs {because_of}", because_of)
                    changed = True

    def _missed_by(self, name: str) -> str:
        for protocol in self._hard_needs(name):
            all_providers = [other for other, one in self._known.items() if protocol in one.component_type.provides]
            if all_providers and not self._providers(protocol):
                return all_providers[0]
        return ""

    def _hard_needs(self, name: str) -> list[type]:
        return [
            one.protocol for one in self._known[name].dependencies if one.hard and one.protocol not in self._provided
        ]

    def _providers(self, protocol: type) -> list[str]:
        return [
            name
            for name, one in self._known.items()
            if protocol in one.component_type.provides and name not in self._out
        ]

    def _check_asked_for(self) -> None:
        for name in self._known:
            if name in self._only and name in self._out:
                why = self._out[name]
                culprit = self._out[why.because_of] if why.because_of else why
                what = (
                    f"it needs {why.because_of}, which is {culprit.reason}" if why.because_of else f"it is {why.reason}"
                )
                raise SelectionImpossible(name, what)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
