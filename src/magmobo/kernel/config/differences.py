"""Which settings differ between two sections or two configurations, and a section that keeps some of its old values.

Tables are compared key by key, lists as a whole: a list is replaced as a whole, so its items have no history.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from magmobo.contracts.errors import ConfigError
from magmobo.kernel.config.keys import joined, steps
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.shapes import fields_of

_MISSING = object()
_Wanted = dict[str, Any]  # names on the way -> the same, empty at the end of a key


def changed_keys(old: Struct, new: Struct) -> frozenset[str]:
    """Keys, relative to the section, whose values differ; of a table that is there on one side only, all its keys."""
    return frozenset(_differences(old, new, ""))


def changed_settings(old: Config, new: Config) -> frozenset[str]:
    """Whole keys (`magds.dsn`) that differ over all sections, those of only one of both included."""
    found: set[str] = set()
    for name in {*old.sections, *new.sections}:
        found.update(_differences(_section(old, name), _section(new, name), name))
    return frozenset(found)


def with_kept(new: Struct, old: Struct, keys: Iterable[str]) -> Struct:
    """`new`, but what stands at `keys` (as `changed_keys` names them) as in `old`.

    A table with such a key that only one of both has is as in `old` wholly.

    Raises: ConfigError when the section itself refuses the mixture.
    """
    wanted: _Wanted = {}
    for key in keys:
        level = wanted
        for step in steps(key):
            level = level.setdefault(str(step), {})
    try:
        kept: Struct = _kept(new, old, wanted) if wanted else new
    except (ValueError, TypeError) as error:
        raise ConfigError([f"together with what waits for a restart of the node: {error}"]) from error
    return kept


def _section(config: Config, name: str) -> object:
    return config.section(name) if name in config.sections else _MISSING


def _differences(old: object, new: object, path: str) -> Iterator[str]:
    if _same(old, new):
        return
    before, after = _table(old), _table(new)
    names = {**(before or {}), **(after or {})}
    if not names or _is_single(old, before) or _is_single(new, after) or _tag(old) != _tag(new):
        yield path
        return
    for name in names:
        yield from _differences(
            before.get(name, _MISSING) if before else _MISSING,
            after.get(name, _MISSING) if after else _MISSING,
            joined(path, name),
        )


def _same(old: object, new: object) -> bool:
    is_nan = isinstance(old, float) and isinstance(new, float) and old != old and new != new
    return is_nan or old == new


def _is_single(value: object, table: Mapping[str, Any] | None) -> bool:
    return table is None and value is not None and value is not _MISSING


def _tag(value: object) -> object:
    """Which of several tables this is, where a setting takes more than one kind of them."""
    return type(value).__struct_config__.tag if isinstance(value, Struct) else None


def _table(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, Struct):
        return {name: getattr(value, field.name) for name, field in fields_of(type(value)).items()}
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else None


def _kept(new: Any, old: Any, wanted: _Wanted) -> Any:
    """`new` with what is `wanted` of `old`."""
    if not wanted:
        return old
    if isinstance(new, Struct) and type(old) is type(new):
        fields = fields_of(type(new))
        replaced = {
            (name := fields[key].name): _kept(getattr(new, name), getattr(old, name), inner)
            for key, inner in wanted.items()
        }
        return msgspec.structs.replace(new, **replaced)
    if isinstance(new, dict) and isinstance(old, dict):
        return _kept_in_table(new, old, wanted)
    return old


def _kept_in_table(new: dict[Any, Any], old: dict[Any, Any], wanted: _Wanted) -> dict[Any, Any]:
    names = {str(key): key for key in [*old, *new]}
    kept = dict(new)
    for spelled, inner in wanted.items():
        name = names.get(spelled, spelled)
        if name not in old:
            kept.pop(name, None)
        elif name in new:
            kept[name] = _kept(new[name], old[name], inner)
        else:
            kept[name] = old[name]
    return kept
