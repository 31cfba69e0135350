"""What an adapter stands for, as data; the documents' map of hook points is made from it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from magmobo.contracts.hooks import HOOK_POINTS, HookSpec


class Surface(Struct, frozen=True, kw_only=True):
    """One adapter: the component it stands for, the Protocols by which it is spoken to, and the methods that extensions
    may call (`methods`), wherever in the plane they are answered.
    """

    adapter: str
    component: str
    protocols: tuple[type, ...]
    methods: tuple[str, ...] = ()

    @property
    def hooks(self) -> Sequence[HookSpec]:
        """Hook points of the component, by name."""
        return [spec for spec in HOOK_POINTS.values() if spec.component == self.component]


class HookPlace(Struct, frozen=True):
    """Where one hook point is: which adapter leads there, and which component offers it."""

    point: str
    adapter: str
    component: str
