"""Which components a node has, what each needs, and in which order they can come up.

Reads constructor annotations once and resolves them to a graph before anything is built, so that a list of components
that cannot work is refused with names and never half booted. Never constructs a component.
"""

from __future__ import annotations

import graphlib
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

from msgspec import Struct

from magmobo.contracts.component import NEEDS, WANTS, Component, Context
from magmobo.kernel.errors import (
    AmbiguousProvider,
    BadDeclaration,
    DependencyCycle,
    DuplicateComponent,
    MissingProvider,
)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


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


def declare(component_type: type[Component]) -> Declaration:
    """Read a component class. Raises: BadDeclaration."""
    name = getattr(component_type, "name", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadDeclaration(component_type.__qualname__, "its `name` is not a lower-case word of at most 32 letters")
    try:
        hints = typing.get_type_hints(component_type.__init__, include_extras=True)
    except NameError as error:
        raise BadDeclaration(name, f"an annotation of its constructor cannot be resolved ({error})") from error
    context_parameter, dependencies = None, []
    if component_type.__init__ is not object.__init__:
        for parameter in list(inspect.signature(component_type.__init__).parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise BadDeclaration(name, f"its constructor takes *{parameter.name}; name each collaborator")
            hint = hints.get(parameter.name)
            if hint is Context:
                context_parameter = parameter.name
            elif dependency := _dependency(parameter.name, hint):
                dependencies.append(dependency)
            elif parameter.default is parameter.empty:
                raise BadDeclaration(name, f'the kernel cannot fill the parameter "{parameter.name}"')
    return Declaration(name, component_type, context_parameter, tuple(dependencies))


def _dependency(parameter: str, hint: Any) -> Dependency | None:
    markers = [marker for marker in (NEEDS, WANTS) if marker in getattr(hint, "__metadata__", ())]
    if not markers:
        return None
    wanted = typing.get_args(hint)[0]
    options = [option for option in typing.get_args(wanted) if option is not NoneType]
    return Dependency(parameter, options[0] if options else wanted, markers[0].hard)


class Registry:
    """The components of one node and the graph between them. `provided` lists Protocols served from outside.

    Raises: DuplicateComponent, AmbiguousProvider, MissingProvider, DependencyCycle, BadDeclaration.
    """

    def __init__(self, component_types: Sequence[type[Component]], provided: Sequence[type] = ()) -> None:
        self.declarations: dict[str, Declaration] = {}
        for component_type in component_types:
            declaration = declare(component_type)
            if declaration.name in self.declarations:
                raise DuplicateComponent(declaration.name)
            self.declarations[declaration.name] = declaration
        self._outside = set(provided)
        self._providers = self._find_providers()
        self.edges = {name: self._edges_of(declaration) for name, declaration in self.declarations.items()}
        self.levels = self._sort()

    def provider_of(self, protocol: type) -> str | None:
        """Name of the component that provides `protocol`, None when it is served from outside or by nobody."""
        return self._providers.get(protocol)

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
                raise MissingProvider(declaration.name, dependency.protocol.__name__)
        return tuple(dict.fromkeys(edges))

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
