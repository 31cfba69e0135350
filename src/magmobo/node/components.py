"""Which components a node runs, and how their classes are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

from msgspec import Struct

from magmobo.contracts.component import Component
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.node.errors import ComponentNotLoadable

DEFAULT_COMPONENTS = (
    "magmobo.components.listener.component:ListenerComponent",
    "magmobo.components.magds.component:MagDS",
    "magmobo.components.maggate.component:MagGate",
    "magmobo.components.magws.component:MagWS",
    "magmobo.console.component:Console",
)
DEMO_COMPONENT = "magmobo.components.demo.component:Demo"


def component_names(configured: Sequence[str], *, demo: bool) -> Sequence[str]:
    """The configured list, or ours when it is empty; a demo joins at the end."""
    names = list(configured or DEFAULT_COMPONENTS)
    if demo and DEMO_COMPONENT not in names:
        names.append(DEMO_COMPONENT)
    return names


def load_components(names: Sequence[str]) -> list[type[Component]]:
    """The classes behind `module:Class` names. Raises: ComponentNotLoadable."""
    return [_load(name) for name in names]


def sections_of(classes: Sequence[type[Component]]) -> Mapping[str, type[Struct]]:
    """The sections of configuration that a node with these components has."""
    return CORE_SECTIONS | {known.name: known.config_type for known in classes if known.config_type is not None}


def _load(name: str) -> type[Component]:
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name or module_name.startswith("."):
        raise ComponentNotLoadable(name, "expected `module:Class`")
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ComponentNotLoadable(name, str(error)) from error
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise ComponentNotLoadable(name, "it is not a Component class")
    if not hasattr(found, "name"):
        raise ComponentNotLoadable(name, "the class has no `name`")
    return found
