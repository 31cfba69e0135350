"""The object in a component's slot, what it was made of, and another one made in its place.

A component gets its section once, before it boots, so one whose settings changed is made anew: same collaborators, same
handles, other section. Invariant: nothing that a former instance held (tasks, subscriptions, handlers) is left when the
next one is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from magmobo.contracts.component import Component
from magmobo.kernel.belongings import Belongings
from magmobo.kernel.registry import Declaration
from magmobo.kernel.supervision.errors import HookEscaped
from magmobo.kernel.surroundings import Surroundings


class Tenant:
    """Of one slot. `section` is the one that counts for the component; `is_stale`: the present instance was made with
    another. `boot_entered` and `booted` are about the present instance.
    """

    def __init__(
        self, declaration: Declaration, around: Surroundings, on_failure: Callable[[BaseException], None]
    ) -> None:
        self._declaration, self._around, self._on_failure = declaration, around, on_failure
        self._collaborators: Mapping[str, Any] = {}
        self._component: Component | None = None
        self.section: Any = None
        self.is_stale = self.boot_entered = self.booted = False
        self.belongings = self._new_belongings()

    @property
    def component(self) -> Component:
        """The present instance. Raises: RuntimeError before the first was made."""
        if self._component is None:
            raise RuntimeError(f"{self._declaration.name} is not constructed")
        return self._component

    @property
    def must_be_made(self) -> bool:
        """Whether the present instance cannot be started: its settings changed, or `boot` did not succeed."""
        return self.is_stale or not self.booted

    def make(self, collaborators: Mapping[str, Any], section: Any) -> None:
        """Construct and configure the first instance. Raises: whatever the component raises, HookEscaped."""
        self._collaborators, self.section = collaborators, section
        self._make()

    def make_anew(self) -> None:
        """Construct and configure another instance, after `close`. Raises: as `make`."""
        self.belongings = self._new_belongings()
        self._make()

    def take(self, section: Any) -> None:
        """From its next start, or recovery, on the component is another instance, made with `section`."""
        self.section, self.is_stale = section, True

    async def close(self) -> None:
        """End everything that belongs to the present instance."""
        self.boot_entered = self.booted = False
        await self.belongings.close()

    def _make(self) -> None:
        arguments = dict(self._collaborators)
        if self._declaration.context_parameter:
            arguments[self._declaration.context_parameter] = self.belongings.context
        try:
            self._component = self._declaration.component_type(**arguments)
            self._component.configure(self.section)
        except SystemExit as error:
            raise HookEscaped(f"raised SystemExit({error})") from error
        self.is_stale = False

    def _new_belongings(self) -> Belongings:
        def failed(error: BaseException) -> None:
            if self.belongings is belongings:  # else a task of a former instance, which ignored its end
                self._on_failure(error)

        kind = self._declaration.component_type
        belongings = Belongings(self._declaration.name, self._around, kind.capabilities, failed)
        return belongings
