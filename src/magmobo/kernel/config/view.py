"""Settings as they may be shown: key, value, who set it, and what a change of it takes.

Invariant: no secret is in what is made here: neither a `Secret`, nor text under a name that sounds like one, nor the
password in a URL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from msgspec import Struct

from magmobo.contracts.configuration import ConfigChange, ConfigEntry
from magmobo.contracts.secret import HIDDEN
from magmobo.contracts.settings import Effect
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.effects import effect_of
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.shapes import fields_of, is_secret, joined, steps, type_at
from magmobo.kernel.redact import redact


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
            entry = ConfigEntry(
                key=key,
                value=_visible(value, _last_name(key)),
                origin=config.origin(key),
                layer=config.layer(key),
                effect=setting_effect(section, key),
                is_secret=_hides(section, key, value),
                reference=config.reference(key),
                waiting=key in waiting,
                expires_at=expires.get(key, ""),
            )
            found.append(entry)
    return found


def change(key: str, old: Config, new: Config) -> ConfigChange:
    """One setting that differs (`differences.changed_settings`); None where it is not set and has no default."""
    before, after = _value_at(old, key), _value_at(new, key)
    section = type(_section(new, key) or _section(old, key))
    return ConfigChange(
        key=key,
        old=_visible(before, _last_name(key)),
        new=_visible(after, _last_name(key)),
        origin=new.origin(key),
        effect=setting_effect(section, key),
        is_secret=_hides(section, key, before) or _hides(section, key, after),
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


def _last_name(key: str) -> str:
    return next((step for step in reversed(steps(key)) if isinstance(step, str)), "")


def _section(config: Config, key: str) -> Any:
    name = str(steps(key)[0])
    return config.section(name) if name in config.sections else None


def _value_at(config: Config, key: str) -> Any:
    value = _section(config, key)
    for step in steps(key)[1:]:
        if isinstance(value, Struct):
            field = fields_of(type(value)).get(str(step))
            value = field and getattr(value, field.name)
        elif isinstance(value, Mapping):
            value = next((item for name, item in value.items() if str(name) == step), None)
        else:
            return None
    return value


def _hides(section: type[Struct], key: str, value: Any) -> bool:
    """Whether the value as a whole is a secret."""
    type_ = type_at(section, steps(key)[1:])
    return is_secret(type_) or _visible(value, _last_name(key)) == HIDDEN


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
