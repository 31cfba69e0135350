"""Puts chains into hook points: who takes part where is decided here, when somebody comes or leaves.

Boundary: one assignment a point; nothing is on the way of operations but what a chain was compiled from. Invariant: a
point where nobody takes part has no chain; an extension is in a point once, whatever its worker is at the moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magmobo.contracts.hooks import HookPoint, Hooks
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.hooks.answers import Answers
from magmobo.extensions.hooks.binding import Absent, Asker, Binding
from magmobo.extensions.hooks.chain import Chain
from magmobo.extensions.hooks.telling import Telling
from magmobo.extensions.installed import Installed

if TYPE_CHECKING:
    import structlog


class _Place:
    """One hook point, and who takes part in it by extension."""

    def __init__(self, point: HookPoint[Any]) -> None:
        self.point, self.answers = point, Answers(point.spec)
        self.bindings: dict[str, tuple[Binding, Telling]] = {}

    def compile(self) -> None:
        """Make who takes part the chain of the point."""
        pairs = sorted(self.bindings.values(), key=lambda pair: pair[0].order)
        if not pairs:
            self.point.chain = None
            return
        bindings, tellings = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self.point.chain = Chain(self.point.spec, self.answers, bindings, tellings)


class HookRouter:
    """Of one node. Use it on the node's loop."""

    def __init__(self, hooks: Hooks, gatekeeper: Gatekeeper, log: structlog.stdlib.BoundLogger) -> None:
        self._hooks, self._gatekeeper, self._log = hooks, gatekeeper, log
        self._places: dict[str, _Place] = {}

    def attach(self, worker: Asker) -> None:
        """Let a worker take part by its manifest, in the place of another one of its extension. Its breakers begin
        closed.
        """
        self._put(worker, only_guards=False)

    def swap(self, old: Asker, new: Asker) -> None:
        """Put `new` where `old` is; a point sees one of the two, never both or none. Raises: ValueError when they are
        not of one extension.
        """
        if old.installed.id != new.installed.id:
            raise ValueError("a worker takes the place of another one of its extension")
        self._put(new, only_guards=False)

    def guard(self, installed: Installed) -> None:
        """Hold the place of an extension that is not there yet: hooks that fail closed deny, the others are skipped."""
        self._put(Absent(installed), only_guards=True)

    def take_over(self) -> None:
        """Points in which nobody of this router takes part are empty from now on: what is in them was left by the
        plane before this one, which denied until its extensions were back.
        """
        for point in self._hooks.points():
            place = self._places.get(point.spec.name)
            if place is None or not place.bindings:
                point.chain = None

    def detach(self, extension_id: str) -> None:
        """Leave an extension out, as a placeholder too; harmless when it is not there."""
        for place in self._places.values():
            if place.bindings.pop(extension_id, None) is not None:
                place.compile()

    def _put(self, worker: Asker, *, only_guards: bool) -> None:
        installed = worker.installed
        wanted: dict[str, Binding] = {}
        for hook in installed.manifest.hooks:
            spec = self._hooks.point(hook.point).spec
            binding = Binding(worker, spec, hook, self._gatekeeper, self._log)
            if not spec.planned and (binding.fails_closed or not only_guards):
                wanted[spec.name] = binding
        for name in wanted.keys() | self._places.keys():
            taken = wanted.get(name)
            if taken is not None:
                tally = self._gatekeeper.tally(installed.id, "hook", name)
                self._place(name).bindings[installed.id] = (taken, Telling(taken, tally))
            elif self._places[name].bindings.pop(installed.id, None) is None:
                continue
            self._places[name].compile()

    def _place(self, name: str) -> _Place:
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = _Place(self._hooks.point(name))
        return place
