"""Which components a node could run, and how their classes are found.

Ours are named in a table. Others come with a Python package that names them in the entry-point group
`magmobo.components`; what is installed takes part, unless `kernel.components` lists what is to run. Whoever names a
component hears why it cannot be loaded; one that nobody named is left out with a notice.
Source: https://packaging.python.org/en/latest/specifications/entry-points/
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from msgspec import Struct

from magmobo.contracts.component import Component
from magmobo.contracts.errors import MagError
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.registry import declare
from magmobo.node.errors import ComponentNotLoadable

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "magmobo.components"
BUILT_IN = {
    "listener": "magmobo.components.listener.component:ListenerComponent",
    "magds": "magmobo.components.magds.component:MagDS",
    "maggate": "magmobo.components.maggate.component:MagGate",
    "magws": "magmobo.components.magws.component:MagWS",
    "extensions": "magmobo.extensions.component:ExtensionPlane",
    "console": "magmobo.console.component:Console",
    "auditexport": "magmobo.components.auditexport.component:AuditExport",
    "demo": "magmobo.components.demo.component:Demo",
}
DEMO_COMPONENT = BUILT_IN["demo"]
ON_DEMAND = ("auditexport", "demo")
"""Of ours, those that do nothing for a user who has not asked for them."""
DEFAULT_COMPONENTS = tuple(path for name, path in BUILT_IN.items() if name not in ON_DEMAND)


class Offer(Struct, frozen=True):
    """Where a component comes from: `target` is `module:Class`, `package` name and version of a distribution, `built
    in`, or empty for a class that was named by its path. `name` is that of its entry point, if there is one.
    """

    target: str
    package: str = ""
    name: str = ""

    @property
    def source(self) -> str:
        """For people."""
        return f"{self.package} ({self.target})" if self.package else self.target


class Found(Struct, frozen=True):
    """What a node could run.

    `sources`: component name -> where it comes from, for people. `optional`: names of those that nobody asked for by
    name. `missing`: names of those that are installed and cannot be loaded; `notices`: a line for each of them.
    """

    classes: Sequence[type[Component]]
    sources: Mapping[str, str]
    optional: Sequence[str]
    missing: Sequence[str]
    notices: Sequence[str]


def component_names(configured: Sequence[str], *, demo: bool, sections: Collection[str] = ()) -> Sequence[str]:
    """The configured list, or, when it is empty, ours with those on demand whose section the user wrote; a demo joins
    at the end.
    """
    names = list(configured or DEFAULT_COMPONENTS)
    if not configured:
        names += [BUILT_IN[name] for name in ON_DEMAND if name != "demo" and name in sections]
    if demo and DEMO_COMPONENT not in names and "demo" not in names:
        names.append(DEMO_COMPONENT)
    return names


def find_components(
    configured: Sequence[str],
    *,
    demo: bool,
    sections: Collection[str] = (),
    asked: Sequence[str] = (),
    lenient: bool = False,
) -> Found:
    """The classes of the configured list; or, when it is empty, ours and those of every installed package.

    Args:
        sections: names of those that the user's configuration has.
        asked: names of components that the user wants, so that a broken one is refused.
        lenient: leave out with a notice whatever cannot be loaded, also what was named; for a node in safe mode.
    Raises: ComponentNotLoadable, BadDeclaration.
    """
    search = _Search()
    for name in component_names(configured, demo=demo, sections=sections):
        search.take(name, lenient=lenient)
    if not configured:
        for offer in installed_components(search.notices):
            search.take_offered(offer, lenient=lenient or offer.name not in asked)
    return search.found()


def load_components(names: Sequence[str]) -> list[type[Component]]:
    """The classes behind names; see `locate`. Raises: ComponentNotLoadable."""
    return [load(locate(name)) for name in names]


def locate(name: str) -> Offer:
    """What `module:Class`, the name of one of ours, or the name of an installed entry point stands for.

    Raises: ComponentNotLoadable.
    """
    if ":" in name:
        return Offer(name, "built in" if name in BUILT_IN.values() else "")
    if name in BUILT_IN:
        return Offer(BUILT_IN[name], "built in")
    notices: list[str] = []
    offers = list(installed_components(notices))
    fitting = [offer for offer in offers if offer.name == name]
    if not fitting:
        there = ", ".join([*BUILT_IN, *(offer.name for offer in offers)])
        raise ComponentNotLoadable(name, "; ".join([f"no such component is installed; there are {there}", *notices]))
    if len(fitting) > 1:
        raise ComponentNotLoadable(name, f"it is offered by {' and '.join(offer.package for offer in fitting)}")
    return fitting[0]


def load(offer: Offer) -> type[Component]:
    """Import the class. Raises: ComponentNotLoadable."""
    component_type = _imported(offer.target)
    if offer.name and component_type.name != offer.name:
        # An entry point carries the name of its component, so that it can be named before anything is imported.
        raise ComponentNotLoadable(offer.source, f'entry point "{offer.name}" leads to "{component_type.name}"')
    return component_type


def installed_components(notices: list[str]) -> Iterator[Offer]:
    """What installed packages offer, by name. A package whose list cannot be read is skipped and noted."""
    from importlib.metadata import distributions  # 13 ms where psycopg has not imported it already

    found: dict[tuple[str, str], Offer] = {}
    for distribution in distributions():
        try:
            for point in _entry_points(distribution):
                named: str | None = distribution.name  # None where METADATA is gone, whatever its type says
                package = f"{named} {distribution.version}" if named else "a package without a name"
                # The first of two installations of one package is the one that Python imports.
                found.setdefault((distribution.name, point.name), Offer(point.value, package, point.name))
        except Exception as error:  # metadata is a file of somebody else's
            notices.append(f"the components of an installed package cannot be read: {_described(error)}")
    yield from sorted(found.values(), key=lambda offer: (offer.name, offer.package))


def sections_of(classes: Sequence[type[Component]]) -> Mapping[str, type[Struct]]:
    """The sections of configuration that a node with these components has."""
    return CORE_SECTIONS | {known.name: known.config_type for known in classes if known.config_type is not None}


class _Search:
    def __init__(self) -> None:
        self.notices: list[str] = []
        self._classes: list[type[Component]] = []
        self._sources: dict[str, str] = {}
        self._optional: list[str] = []
        self._missing: list[str] = []

    def take(self, name: str, *, lenient: bool) -> None:
        """Load a component that was named. Two of one name are for the registry to refuse."""
        try:
            offer = locate(name)
            self._keep(load(offer), offer)
        except MagError as error:
            if not lenient:
                raise
            self._note(name, name, error)

    def take_offered(self, offer: Offer, *, lenient: bool) -> None:
        """Load a component that was not listed, unless it is here already."""
        try:
            component_type = load(offer)
            if component_type in self._classes:
                return
            if other := self._sources.get(component_type.name):
                raise ComponentNotLoadable(offer.target, f'"{component_type.name}" is the name of another, {other}')
            self._keep(component_type, offer)
            self._optional.append(component_type.name)
        except MagError as error:
            if not lenient:
                raise
            self._note(offer.name, offer.source, error)

    def _keep(self, component_type: type[Component], offer: Offer) -> None:
        declare(component_type)
        self._classes.append(component_type)
        self._sources.setdefault(component_type.name, offer.source)

    def _note(self, name: str, what: str, error: MagError) -> None:
        self._missing.append(name)
        self.notices.append(f"{what} is left out: {error} [{error.code}]")

    def found(self) -> Found:
        return Found(
            classes=tuple(self._classes),
            sources=self._sources,
            optional=tuple(self._optional),
            missing=tuple(name for name in self._missing if name not in self._sources),
            notices=tuple(self.notices),
        )


def _entry_points(distribution: Distribution) -> list[EntryPoint]:
    # Most packages have no such list, or not this group in it; parsing them all takes three times as long.
    text = distribution.read_text("entry_points.txt")
    if text is None or GROUP not in text:
        return []
    return list(distribution.entry_points.select(group=GROUP))


def _imported(path: str) -> type[Component]:
    module_name, _, class_name = path.partition(":")
    if not module_name or not class_name or module_name.startswith("."):
        raise ComponentNotLoadable(path, "expected `module:Class`")
    try:
        found = getattr(import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # importing runs code of somebody else's
        raise ComponentNotLoadable(path, _described(error)) from error
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise ComponentNotLoadable(path, "it is not a Component class")
    if not hasattr(found, "name"):
        raise ComponentNotLoadable(path, "the class has no `name`")
    return found


def _described(error: BaseException) -> str:
    return str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
