"""What stands above the files: overrides and patches of run time, and secrets of the vault named like settings.

Boundary: pure functions of values; nothing is validated but that no secret is set by its value, because what is set at
run time is kept in the clear. Invariant: the base is never changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import HIDDEN
from magmobo.kernel.config.keys import around, steps
from magmobo.kernel.config.layers import Text
from magmobo.kernel.config.shapes import holds_secret, inside, is_secret
from magmobo.kernel.config.source import Base, Runtime, RuntimeSetting

_READ_FIRST = frozenset({"kernel.data_dir", "kernel.environment", "kernel.components"})
OVERRIDE, PATCH, VAULT = "override", "patch", "vault"
_BELOW_THE_VAULT = frozenset({"default", "demo", "generated", "file", "secrets"})
_ONE_REFERENCE = r"(?:vault|file|env|cred):[^\s]+(?![\s\S])"
# A connection string is no secret when its password is a reference, and nothing else in it can be one.
_URL_WITH_REFERENCE = r"[a-z][a-z0-9+.-]*://[^\s:/@?]*:\$\{[^{}\s]+\}@[^\s@?]*(?![\s\S])"


class Overlaid(NamedTuple):
    """The fields of a `Base` with more in them."""

    values: dict[str, Any]
    origins: dict[str, str]
    layers: dict[str, str]


def overlaid(base: Base, runtime: Runtime, sections: Mapping[str, type[Struct]]) -> Overlaid:
    """The base with what was set at run time; patches win over overrides.

    Raises: ConfigError for a secret that is set by its value, and for a key inside of something that is no table.
    """
    result = Overlaid(_copied(base.values), dict(base.origins), dict(base.layers))
    problems: list[str] = []
    for kind, settings in ((OVERRIDE, runtime.overrides), (PATCH, runtime.patches)):
        for key, setting in settings.items():
            origin = f"{kind} by {setting.actor}"
            if reason := _refused(key, setting, sections):
                problems.append(f"{key} {reason} ({origin})")
            elif not put(result, key, Text(setting.value), origin, kind):
                problems.append(f"{key}: what it stands in is no table ({origin})")
    if problems:
        raise ConfigError(problems)
    return result


def refer_to_vault(into: Overlaid, names: Collection[str], sections: Mapping[str, type[Struct]]) -> None:
    """A secret of the vault with the name of a setting (`magds.dsn`) is that setting, unless the environment, the
    command line or somebody at run time said otherwise.
    """
    for name in names:
        type_ = _type_of(name, sections)
        if type_ is not None and is_secret(type_) and into.layers.get(name, "default") in _BELOW_THE_VAULT:
            put(into, name, f"vault:{name}", f"vault {name}", VAULT)


def put(into: Overlaid, key: str, value: Any, origin: str, layer: str) -> bool:
    """Set one key, tables on the way included; False, and nothing changed, when one of them is something else."""
    *tables, last = steps(key)
    target: Any = into.values
    for table in tables:
        target = target.get(table, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            return False
    target = into.values
    for table in tables:
        target = target.setdefault(table, {})
    if not isinstance(last, str):
        return False
    replaced, target[last] = target.get(last), value
    if isinstance(replaced, (dict, list)):  # looking through all of them for each key takes long when many were set
        for stale in [known for known in into.origins if known.startswith((f"{key}.", f"{key}["))]:
            del into.origins[stale]
            into.layers.pop(stale, None)
    into.origins[key], into.layers[key] = origin, layer
    return True


def recordable(key: str, value: str, sections: Mapping[str, type[Struct]]) -> str:
    """`value` as the audit log may hold it: of a secret its reference only, and nothing of what is no setting.

    A key that is unknown may be that of a secret, mistyped; one that sounds secret is shown to nobody (`view`).
    """
    from magmobo.kernel.redact import sounds_secret  # no start needs it

    type_ = _type_of(key, sections)
    if type_ is None:
        return HIDDEN
    is_hidden = holds_secret(type_) or sounds_secret(str(steps(key)[-1]))
    return HIDDEN if is_hidden and not _is_reference(type_, value) else value


def _refused(key: str, setting: RuntimeSetting, sections: Mapping[str, type[Struct]]) -> str:
    """Why this key cannot be set at run time to this value, or empty. Unknown keys are for the validation."""
    if key in _READ_FIRST:
        return "is read before what was set at run time: write it into mag.toml or the environment"
    if "[" in key:
        return f"is one item of a list: set {around(key).partition('[')[0]} as a whole"
    type_ = _type_of(key, sections)
    if type_ is None or not holds_secret(type_) or _is_reference(type_, setting.value):
        return ""
    return "is secret, and not set by its value: store it with `mag vault:set NAME`, then set `vault:NAME`"


def _is_reference(type_: Any, value: str) -> bool:
    """Whether `value` is no secret, but says where one is."""
    return is_secret(type_) and bool(re.match(_ONE_REFERENCE, value) or re.match(_URL_WITH_REFERENCE, value))


def _type_of(key: str, sections: Mapping[str, type[Struct]]) -> Any:
    """The type of a setting, None for one that there is not."""
    section, *path = steps(key)
    type_: Any = sections.get(section) if isinstance(section, str) and path else None
    for step in path:
        type_ = None if type_ is None else inside(type_, step)
    return type_


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tables anew, all else shared: only tables are changed here."""
    return dict(_copies(values))


def _copies(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield key, _copied(value) if isinstance(value, Mapping) else value
