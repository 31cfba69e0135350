"""Which components a node has, what each needs, and in which order they can come up.

Reads constructor annotations once and resolves them to a graph before anything is built, so that a list of components
that cannot work is refused with names and never half booted. Never constructs a component.

A registry does not change: adding or taking off a component gives another one, checked as a whole, or a refusal after
which the first is still what it was. What it says depends on its members alone, not on the way that led there.
"""

from __future__ import annotations

import graphlib
import inspect
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from magmobo.contracts.component import NEEDS, WANTS, Component, Context
from magmobo.kernel.errors import (
    AmbiguousProvider,
    BadDeclaration,
    DependencyCycle,
    DuplicateComponent,
    MissingProvider,
    StillNeeded,
    UnknownComponent,
)

if TYPE_CHECKING:
    from magmobo.contracts.operations import Graph, GraphEdge

_NAME = r"[a-z][a-z0-9_]{0,31}"
RESERVED = frozenset(
    {
        "admin", "audit", "boot", "bus", "cache", "commands", "config", "core", "health", "kernel", "logging", "node",
        "observability", "recovery", "security", "state", "supervisor", "vault",
    }
)  # fmt: skip
"""Names that a component cannot carry: sections of configuration and owners of state that belong to the node itself."""
_ASYNC_HOOKS = ("boot", "start", "stop", "shutdown", "recover", "health", "prepare_reload", "abort_reload")


class Dependency(Struct, frozen=True):
    """One constructor parameter that asks for a Protocol; `hard` means the component cannot do without."""

    parameter: str
    protocol: type
    hard: bool


class Declaration(Struct, frozen=True):
    """What a component class says about itself."""

    name: str
    component_type: type[Component]
    context_parameter: str | None
    dependencies: tuple[Dependency, ...]


# ---------------------------------------------------------------- one class


def declare(component_type: type[Component]) -> Declaration:
    """Read a component class. Raises: BadDeclaration."""
    name = getattr(component_type, "name", "")
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise BadDeclaration(component_type.__qualname__, "its `name` is not a lower-case word of at most 32 letters")
    if name in RESERVED:
        raise BadDeclaration(name, "that name belongs to the node itself; choose another")
    _check_manifest(name, component_type)
    context_parameter, dependencies = None, []
    if component_type.__init__ is not object.__init__:
        hints = _hints(name, component_type)
        for parameter in list(inspect.signature(component_type.__init__).parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise BadDeclaration(name, f"its constructor takes *{parameter.name}; name each collaborator")
            hint = hints.get(parameter.name)
            if hint is Context:
                context_parameter = parameter.name
            elif dependency := _dependency(name, parameter.name, hint):
                dependencies.append(dependency)
            elif parameter.default is parameter.empty:
                raise BadDeclaration(name, f'the kernel cannot fill the parameter "{parameter.name}"')
    return Declaration(name, component_type, context_parameter, tuple(dependencies))


def class_path(component_type: type) -> str:
    """`module:Class`, as people name it."""
    return f"{component_type.__module__}:{component_type.__qualname__}"


def _check_manifest(name: str, component_type: type[Component]) -> None:
    for field, kind, wanted in (("after", str, "names"), ("capabilities", str, "names"), ("provides", type, "classes")):
        value = getattr(component_type, field)
        if not isinstance(value, tuple) or not all(isinstance(one, kind) for one in value):
            raise BadDeclaration(name, f"its `{field}` is not a tuple of {wanted}")
    section = component_type.config_type
    if section is not None and not (isinstance(section, type) and issubclass(section, Struct)):
        raise BadDeclaration(name, "its `config_type` is not a msgspec Struct")
    for hook in _ASYNC_HOOKS:
        if not inspect.iscoroutinefunction(getattr(component_type, hook)):
            raise BadDeclaration(name, f"its hook `{hook}` is not `async def`")
    if inspect.iscoroutinefunction(component_type.commit_reload):
        raise BadDeclaration(name, "its hook `commit_reload` is `async def`; it runs in one turn with those of others")


def _hints(name: str, component_type: type[Component]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(component_type.__init__, include_extras=True)
    except Exception as error:  # annotations are code of the component's author
        raise BadDeclaration(name, f"an annotation of its constructor cannot be resolved ({error})") from error


def _dependency(name: str, parameter: str, hint: Any) -> Dependency | None:
    markers = [marker for marker in (NEEDS, WANTS) if marker in getattr(hint, "__metadata__", ())]
    if not markers:
        return None
    wanted = typing.get_args(hint)[0]
    options = [option for option in typing.get_args(wanted) if option is not NoneType] or [wanted]
    if len(options) > 1 or not isinstance(options[0], type):
        raise BadDeclaration(name, f'the parameter "{parameter}" asks for {wanted}, which is not one class')
    return Dependency(parameter, options[0], markers[0].hard)


def declare_all(component_types: Iterable[type[Component]]) -> dict[str, Declaration]:
    """Declarations by name, in the order given. Raises: BadDeclaration, DuplicateComponent."""
    declarations: dict[str, Declaration] = {}
    for component_type in component_types:
        declaration = declare(component_type)
        if other := declarations.get(declaration.name):
            raise DuplicateComponent(declaration.name, class_path(other.component_type), class_path(component_type))
        declarations[declaration.name] = declaration
    return declarations


# ---------------------------------------------------------------- all of a node


class Registry:
    """The components of one node and the graph between them.

    Args:
        component_types: the members.
        provided: Protocols served from outside.
        idle: components that are known and do not take part: disabled, or left out of this start.
    Raises: DuplicateComponent, AmbiguousProvider, MissingProvider, DependencyCycle, BadDeclaration.
    """

    def __init__(
        self,
        component_types: Sequence[type[Component]],
        provided: Sequence[type] = (),
        idle: Sequence[type[Component]] = (),
    ) -> None:
        known = declare_all((*component_types, *idle))
        members = len(component_types)
        self.declarations = dict(list(known.items())[:members])
        self.idle = dict(list(known.items())[members:])
        self._outside = tuple(dict.fromkeys(provided))
        self._providers = self._find_providers()
        self.edges = {name: self._edges_of(declaration) for name, declaration in self.declarations.items()}
        self.levels = self._sort()

    # ------------------------------------------------------------ questions

    def provider_of(self, protocol: type) -> str | None:
        """Name of the component that provides `protocol`, None when it is served from outside or by nobody."""
        return self._providers.get(protocol)

    def needs(self, name: str) -> tuple[str, ...]:
        """Names of the components that provide what `name` cannot do without. Raises: UnknownComponent."""
        return self._providers_for(name, hard=True)

    def wants(self, name: str) -> tuple[str, ...]:
        """Names of the components that provide what `name` could do without. Raises: UnknownComponent."""
        hard = self._providers_for(name, hard=True)
        return tuple(provider for provider in self._providers_for(name, hard=False) if provider not in hard)

    def needed_by(self, name: str, *, transitive: bool = False) -> tuple[str, ...]:
        """Names of the components that cannot do without `name`; `transitive`: and those that need them, and so on.

        They are in the order in which they would have to leave before `name` could. Raises: UnknownComponent.
        """
        self._member(name)
        found = {name}
        for level in self.levels:  # a consumer comes up after what it needs
            needing = found if transitive else {name}
            found |= {consumer for consumer in level if needing.intersection(self.needs(consumer))}
        order = [consumer for level in reversed(self.levels) for consumer in level]
        return tuple(consumer for consumer in order if consumer in found and consumer != name)

    def graph(self) -> Graph:
        """The graph as data and as DOT; idle components are not in it."""
        from magmobo.kernel.graph import graph_of  # its Structs take 5 ms to define; asked for by operators only

        return graph_of(self.levels, self._graph_edges())

    # ------------------------------------------------------------ changes

    def with_added(self, component_type: type[Component]) -> Registry:
        """With one more member. Raises: as the constructor, and this registry is as it was."""
        return self._with([*self._types(), component_type], self._idle_types())

    def with_removed(self, name: str) -> Registry:
        """Without this component, member or idle. Raises: UnknownComponent, StillNeeded."""
        if name not in self.idle:
            self._check_free(name)
        return self._with(
            [declaration.component_type for declaration in self.declarations.values() if declaration.name != name],
            [declaration.component_type for declaration in self.idle.values() if declaration.name != name],
        )

    def with_disabled(self, name: str) -> Registry:
        """With this member idle. Raises: UnknownComponent, StillNeeded."""
        self._check_free(name)
        kept = [declaration.component_type for declaration in self.declarations.values() if declaration.name != name]
        return self._with(kept, [*self._idle_types(), self.declarations[name].component_type])

    def with_enabled(self, name: str) -> Registry:
        """With this idle component as a member. Raises: UnknownComponent, and as the constructor."""
        if name not in self.idle:
            raise UnknownComponent(name)
        idle = [declaration.component_type for declaration in self.idle.values() if declaration.name != name]
        return self._with([*self._types(), self.idle[name].component_type], idle)

    # ------------------------------------------------------------ inside

    def _with(self, component_types: Sequence[type[Component]], idle: Sequence[type[Component]]) -> Registry:
        return Registry(component_types, self._outside, idle)

    def _types(self) -> list[type[Component]]:
        return [declaration.component_type for declaration in self.declarations.values()]

    def _idle_types(self) -> list[type[Component]]:
        return [declaration.component_type for declaration in self.idle.values()]

    def _member(self, name: str) -> Declaration:
        if name not in self.declarations:
            raise UnknownComponent(name)
        return self.declarations[name]

    def _check_free(self, name: str) -> None:
        if consumers := self.needed_by(name, transitive=True):
            raise StillNeeded(name, consumers)

    def _providers_for(self, name: str, *, hard: bool) -> tuple[str, ...]:
        asked = [one.protocol for one in self._member(name).dependencies if one.hard == hard]
        return tuple(dict.fromkeys(self._providers[protocol] for protocol in asked if protocol in self._providers))

    def _find_providers(self) -> Mapping[type, str]:
        providers: dict[type, str] = {}
        for name, declaration in self.declarations.items():
            for protocol in declaration.component_type.provides:
                if other := ("the node itself" if protocol in self._outside else providers.get(protocol)):
                    raise AmbiguousProvider(protocol.__name__, other, name)
                providers[protocol] = name
        return providers

    def _edges_of(self, declaration: Declaration) -> tuple[str, ...]:
        """Names of the components that come up before this one."""
        edges = [name for name in declaration.component_type.after if name in self.declarations]
        for dependency in declaration.dependencies:
            if provider := self._providers.get(dependency.protocol):
                edges.append(provider)
            elif dependency.hard and dependency.protocol not in self._outside:
                raise MissingProvider(
                    declaration.name, dependency.protocol.__name__, self._idle_provider(dependency.protocol)
                )
        return tuple(dict.fromkeys(edges))

    def _idle_provider(self, protocol: type) -> str:
        provides = (name for name, idle in self.idle.items() if protocol in idle.component_type.provides)
        return next(provides, "")

    def _graph_edges(self) -> list[GraphEdge]:
        from magmobo.contracts.operations import GraphEdge

        edges = []
        for name, declaration in self.declarations.items():
            for dependency in declaration.dependencies:
                if provider := self._providers.get(dependency.protocol):
                    kind = "needs" if dependency.hard else "wants"
                    edges.append(GraphEdge(name, provider, kind, dependency.protocol.__name__))
            known = [other for other in declaration.component_type.after if other in self.declarations]
            edges += [GraphEdge(name, other, "after", "") for other in known]
        return edges

    def _sort(self) -> tuple[tuple[str, ...], ...]:
        """Components by level: each needs only components of earlier levels."""
        sorter = graphlib.TopologicalSorter(self.edges)
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            # graphlib lists each before the one that waits for it; people read "a -> b" as "a needs b".
            raise DependencyCycle(list(reversed(error.args[1]))) from error
        levels = []
        while sorter.is_active():
            ready = sorter.get_ready()
            levels.append(tuple(name for name in self.declarations if name in ready))
            sorter.done(*ready)
        return tuple(levels)
