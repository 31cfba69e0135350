"""What whoever starts a node says about its components, and how a further one is found while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from magmobo.contracts.component import Component


class Choice(Struct, frozen=True):
    """Which of the components take part (see `selection.select`), and what is known about them.

    `descriptors_wanted`, `ports`: what the self-test looks at for them (see `selftest.run`).
    `sources`: component name -> where it comes from, for people; `notices`: what could not be loaded, a line each.
    """

    only: Sequence[str] = ()
    without: Sequence[str] = ()
    optional: Sequence[str] = ()
    missing: Sequence[str] = ()
    safe: bool = False
    descriptors_wanted: int = 0
    ports: Sequence[tuple[str, int]] = ()
    sources: Mapping[str, str] = {}
    notices: Sequence[str] = ()


EVERYTHING = Choice()


class Newcomer(Struct, frozen=True):
    """A component that is to join the running node: its class, and where it comes from."""

    component_type: type[Component]
    source: str


Resolve = Callable[[str], Newcomer]
"""From `module:Class`, or the name of an installed component."""
