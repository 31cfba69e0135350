"""Layers in, one valid `Config` out, or a `ConfigError` that lists every problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from magmobo.contracts.errors import ConfigError
from magmobo.kernel.config.keys import around, joined
from magmobo.kernel.config.layers import Layer

if TYPE_CHECKING:
    from magmobo.kernel.config.validate import Checker, Resolve

DEFAULT_ORIGIN = "default"


class Merged(Struct, frozen=True):
    """All layers as one tree, and of every leaf who set it (`origins`, of things in a list too) and in what kind of
    layer (`layers`).
    """

    values: dict[str, Any]
    origins: dict[str, str]
    layers: dict[str, str]


class Config:
    """Every section of the node, validated and frozen, with the origin of each setting."""

    def __init__(
        self,
        sections: Mapping[str, Struct],
        origins: Mapping[str, str],
        layers: Mapping[str, str] = {},
        references: Mapping[str, str] = {},
    ) -> None:
        self._sections, self._origins = dict(sections), origins
        self._layers, self._references = layers, references

    def section(self, name: str) -> Any:
        """The frozen Struct of a section. Raises: KeyError for a section that was not declared."""
        return self._sections[name]

    @property
    def sections(self) -> Iterable[str]:
        """Names of all sections, in the order they were declared."""
        return self._sections.keys()

    def origin(self, key: str) -> str:
        """Who set `section.key`: a file and its line, `environment NAME`, another layer's origin, or `default`.

        A key inside a list or table answers with the origin of the nearest thing around it that was set as a whole.
        """
        return _nearest(self._origins, key)

    def layer(self, key: str) -> str:
        """The kind of layer that set `section.key`, one of `ConfigEntry.layer`."""
        return _nearest(self._layers, key)

    def reference(self, key: str) -> str:
        """What the secrets at `section.key`, or inside of it, were taken from: `vault:name`, several with commas; empty
        where they were said themselves.
        """
        inside = (f"{key}.", f"{key}[")
        found = [text for path, text in self._references.items() if path == key or path.startswith(inside)]
        return ", ".join(dict.fromkeys(found))

    def replaced(self, sections: Mapping[str, Struct]) -> Config:
        """This configuration with other values in some of its sections; who set what stays as it is."""
        return Config({**self._sections, **sections}, self._origins, self._layers, self._references)

    def joined(self, name: str, other: Config) -> Config:
        """With one more section, which is that of the other configuration; it also says who set it."""
        return Config(
            {**self._sections, name: other.section(name)},
            with_section(self._origins, other._origins, name),
            with_section(self._layers, other._layers, name),
            with_section(self._references, other._references, name),
        )

    def keeping(self, sections: Mapping[str, Struct], former: Config, keys: Iterable[str]) -> Config:
        """As `replaced`, where `keys` have the values that they had in `former`: it also says who set these."""
        origins, layers, references = dict(self._origins), dict(self._layers), dict(self._references)
        for key in keys:
            for known in (origins, layers, references):
                for stale in [name for name in known if name == key or name.startswith((f"{key}.", f"{key}["))]:
                    del known[stale]
            origins[key], layers[key] = former.origin(key), former.layer(key)
            if reference := former.reference(key):
                references[key] = reference
        return Config({**self._sections, **sections}, origins, layers, references)


def with_section(ours: Mapping[str, str], theirs: Mapping[str, str], name: str) -> dict[str, str]:
    """What is said by key, where it is about this section as they say it."""
    inside = (f"{name}.", f"{name}[")
    kept = {key: said for key, said in ours.items() if not key.startswith(inside)}
    return kept | {key: said for key, said in theirs.items() if key.startswith(inside)}


def _nearest(known: Mapping[str, str], key: str) -> str:
    while key:
        if key in known:
            return known[key]
        key = around(key)
    return DEFAULT_ORIGIN


def merge(layers: Sequence[Layer]) -> Merged:
    """Later layers win; tables merge key by key, all else replaces."""
    merged = Merged({}, {}, {})
    for layer in layers:
        _merge_into(merged.values, merged, layer, layer.values, "")
    return merged


def _merge_into(target: dict[str, Any], merged: Merged, layer: Layer, source: Mapping[str, Any], prefix: str) -> None:
    for key, value in source.items():
        path, present = joined(prefix, key), target.get(key)
        if isinstance(value, Mapping):
            if not isinstance(present, dict):
                _forget(merged, path, present)
                present = target[key] = {}
            _merge_into(present, merged, layer, value, path)
            continue
        _forget(merged, path, present)
        target[key] = value
        merged.origins[path], merged.layers[path] = layer.origins.get(path, layer.origin), layer.kind
        if layer.origins and isinstance(value, list):
            _note_items(merged.origins, layer, value, path)


def _forget(merged: Merged, path: str, present: object) -> None:
    """Who set `path` and what stood in it, because a later layer replaces it as a whole."""
    if isinstance(present, (dict, list)):
        for stale in [key for key in merged.origins if key.startswith((f"{path}.", f"{path}["))]:
            del merged.origins[stale]
            merged.layers.pop(stale, None)
    merged.origins.pop(path, None)
    merged.layers.pop(path, None)


def _note_items(origins: dict[str, str], layer: Layer, value: list[Any] | dict[str, Any], path: str) -> None:
    """Who set what is in a list."""
    is_list = isinstance(value, list)
    for step, item in enumerate(value) if isinstance(value, list) else value.items():
        inner = f"{path}[{step}]" if is_list else joined(path, str(step))
        if inner in layer.origins:
            origins[inner] = layer.origins[inner]
        if isinstance(item, (list, dict)):
            _note_items(origins, layer, item, inner)


def load_config(
    sections: Mapping[str, type[Struct]], layers: Sequence[Layer], *, resolve: Resolve | None = None
) -> Config:
    """Merge `layers` (later wins) and build each of `sections`, as `build_config`."""
    merged = merge(layers)
    return build_config(sections, merged.values, merged.origins, merged.layers, resolve=resolve)


def build_config(
    sections: Mapping[str, type[Struct]],
    values: Mapping[str, Any],
    origins: Mapping[str, str],
    layers: Mapping[str, str],
    *,
    resolve: Resolve | None = None,
) -> Config:
    """Validate each of `sections` from merged values; a section nobody sets takes its defaults.

    resolve: gives what a reference in the text of a secret leads to, for a setting; None takes every text as it is.
    Raises: ConfigError naming every problem: `section.key = value (origin): expected …`, never a secret's value, and
    unknown names with the nearest known one. Whatever `resolve` raises besides ReferenceFailed.
    """
    if not values:
        with suppress(TypeError, ValueError):  # one of them must be set, which the checker says
            return Config({name: section() for name, section in sections.items()}, origins, layers)
    from magmobo.kernel.config.validate import Checker  # 1 ms that a start without a setting does not pay

    checker = Checker(origins, resolve)
    for unknown in values.keys() - sections.keys():
        checker.unknown_section(unknown, sections)
    built = {name: _built(checker, section, values.get(name), name) for name, section in sections.items()}
    if problems := checker.problems():
        raise ConfigError(problems)
    whole = {name: section for name, section in built.items() if section is not None}
    return Config(whole, origins, layers, checker.references)


def _built(checker: Checker, section: type[Struct], value: Any, name: str) -> Struct | None:
    """A section nobody sets is made of its defaults without asking for the types of its fields: 0.3 ms less for each.

    If it must be set after all, the checker says so.
    """
    if value is None:
        with suppress(TypeError, ValueError):
            return section()
    return checker.build(section, {} if value is None else value, name)
