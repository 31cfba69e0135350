"""Settings as they may be shown: key, value, who set it, and what a change of it takes.

Invariant: no secret is in what is made here: neither a `Secret`, nor text under a name that sounds like one, nor the
password in a URL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from msgspec import Struct

from magmobo.contracts.configuration import ConfigChange, ConfigEntry
from magmobo.contracts.secret import HIDDEN
from magmobo.contracts.settings import Effect
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.effects import effect_of
from magmobo.kernel.config.keys import joined, steps
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.shapes import fields_of, is_secret, type_at
from magmobo.kernel.redact import redact

_Way = Sequence[str | int]


def entries(
    config: Config,
    sections: Mapping[str, type[Struct]],
    *,
    prefix: str = "",
    waiting: Collection[str] = (),
    expires: Mapping[str, str] = {},
) -> list[ConfigEntry]:
    """Every setting of `sections`, defaults included, by section and in the order of its declaration.

    Args:
        prefix: only this setting, or those inside of it; of a thing in a list, the list.
        waiting: keys whose running value is not what the layers say.
        expires: of keys that a patch set, when it ends (RFC 3339).
    """
    found = []
    for name, section in sections.items():
        for key, value in _leaves(config.section(name), name):
            if prefix and not (_is_inside(key, prefix) or _is_inside(prefix, key)):
                continue
            way = steps(key)
            seen = _visible(value, _last_name(way))
            entry = ConfigEntry(
                key=key,
                value=seen,
                origin=config.origin(key),
                layer=config.layer(key),
                effect=setting_effect(section, key),
                is_secret=_is_hidden(section, way, seen),
                reference=config.reference(key),
                waiting=key in waiting,
                expires_at=expires.get(key, ""),
            )
            found.append(entry)
    return found


def change(key: str, old: Config, new: Config) -> ConfigChange:
    """One setting that differs (`differences.changed_settings`); None where it is not set and has no default."""
    way = steps(key)
    before, after = (_visible(_value_at(config, way), _last_name(way)) for config in (old, new))
    section = type(_section(new, way) or _section(old, way))
    return ConfigChange(
        key=key,
        old=before,
        new=after,
        origin=new.origin(key),
        effect=setting_effect(section, key),
        is_secret=_is_hidden(section, way, before) or _is_hidden(section, way, after),
    )


def setting_effect(section: type[Struct], key: str) -> Effect:
    """What a change of `section.key` takes: its mark, or else a restart of the component, of a core section's node."""
    name, _, inner = key.partition(".")
    return effect_of(section, inner, default=Effect.NODE if name in CORE_SECTIONS else Effect.COMPONENT)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """What is neither a table with known keys nor a table with something in it."""
    if isinstance(value, Struct):
        for name, field in fields_of(type(value)).items():
            yield from _leaves(getattr(value, field.name), joined(key, name))
    elif isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, joined(key, str(name)))
    else:
        yield key, value


def _is_inside(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith((f"{prefix}.", f"{prefix}["))


def _last_name(way: _Way) -> str:
    return next((step for step in reversed(way) if isinstance(step, str)), "")


def _section(config: Config, way: _Way) -> Any:
    name = str(way[0])
    return config.section(name) if name in config.sections else None


def _value_at(config: Config, way: _Way) -> Any:
    value = _section(config, way)
    for step in way[1:]:
        if isinstance(value, Struct):
            field = fields_of(type(value)).get(str(step))
            value = field and getattr(value, field.name)
        elif isinstance(value, Mapping):
            value = next((item for name, item in value.items() if str(name) == step), None)
        else:
            return None
    return value


def _is_hidden(section: type[Struct], way: _Way, seen: Any) -> bool:
    """Whether the value as a whole is a secret."""
    return seen == HIDDEN or is_secret(type_at(section, way[1:]))


def _visible(value: Any, name: str) -> Any:
    """A value as JSON can hold it and anybody may see it. `name`: what it stands under."""
    if value is None or value == "" or isinstance(value, (bool, int, float)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Struct):
        return {key: _visible(getattr(value, field.name), key) for key, field in fields_of(type(value)).items()}
    if isinstance(value, Mapping):
        return {str(key): _visible(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_visible(item, name) for item in value]
    if isinstance(value, Enum):
        return value.value
    return redact(str(value) if isinstance(value, Path) else value, name)
