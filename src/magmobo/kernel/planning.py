"""What other settings mean for a running node: who takes them while it serves, who is made anew, what must wait.

Boundary: compares and decides, changes nothing. Invariant: the configuration of a plan differs from the one that counts
in exactly the keys of `changed`; what only a restart of the node could change keeps its running value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from msgspec import Struct, structs

from magmobo.contracts.component import Component
from magmobo.contracts.configuration import ReloadPlan
from magmobo.contracts.settings import Effect
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.differences import changed_keys, with_kept
from magmobo.kernel.config.effects import effect_of
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.view import change
from magmobo.kernel.twophase import takes_live

CORE = "core"
"""Stands for the node itself where components are named."""


class Plan(Struct, frozen=True):
    """From `before` to `config`. `built` is what the layers say, with what `waiting` has to wait for.

    `effects` is by whole key, of `changed` and `waiting`; `live` gives the keys of a component relative to its section;
    `live` and `anew` are in the order in which components come up; `core` are whole keys of the node itself.
    """

    before: Config
    built: Config
    config: Config
    effects: Mapping[str, Effect]
    changed: Set[str]
    waiting: Set[str]
    live: Mapping[str, Set[str]]
    anew: Sequence[str]
    core: Set[str]


def make_plan(before: Config, built: Config, members: Mapping[str, type[Component]]) -> Plan:
    """Compare section by section. A section that `built` does not have, of a component that joined later, stays.

    members: components of this node that are not idle, in the order in which they come up.
    Raises: ConfigError when what may change and what must wait do not fit together.
    """
    known = set(built.sections)
    kept = {name: before.section(name) for name in before.sections if name not in known}
    effects: dict[str, Effect] = {}
    relative: dict[str, Set[str]] = {}
    for name in before.sections:
        if name not in known or not (keys := changed_keys(before.section(name), built.section(name))):
            continue
        of_section = _effects(name, built, keys, members.get(name))
        effects |= {f"{name}.{key}": effect for key, effect in of_section.items()}
        waiting = [key for key, effect in of_section.items() if effect is Effect.NODE]
        if waiting:
            kept[name] = with_kept(built.section(name), before.section(name), waiting)
            keys = changed_keys(before.section(name), kept[name])
        relative[name] = keys
    changed = {f"{name}.{key}" for name, keys in relative.items() for key in keys}
    is_live = {
        name: all(effects[f"{name}.{key}"] is Effect.LIVE for key in keys) for name, keys in relative.items() if keys
    }
    return Plan(
        before=before,
        built=built,
        config=built.keeping(kept, before, effects.keys() - changed) if kept else built,
        effects=effects,
        changed=frozenset(changed),
        waiting=frozenset(effects.keys() - changed),
        live={name: relative[name] for name in members if is_live.get(name)},
        anew=[name for name in members if is_live.get(name) is False],
        core=frozenset(key for key in changed if key.partition(".")[0] in CORE_SECTIONS),
    )


def shown(plan: Plan) -> ReloadPlan:
    """The plan as its operators see it, without secrets."""
    changes = [
        structs.replace(change(key, plan.before, plan.built), effect=plan.effects[key]) for key in sorted(plan.effects)
    ]
    return ReloadPlan(
        changes=changes,
        live=[*([CORE] if plan.core else []), *plan.live],
        restarts=plan.anew,
        waiting=sorted(plan.waiting),
    )


def _effects(name: str, built: Config, keys: Set[str], component_type: type[Component] | None) -> Mapping[str, Effect]:
    section, is_core = type(built.section(name)), name in CORE_SECTIONS
    found = {key: effect_of(section, key, default=Effect.NODE if is_core else Effect.COMPONENT) for key in keys}
    if is_core:
        return {key: effect if effect is Effect.LIVE else Effect.NODE for key, effect in found.items()}
    if component_type is None or takes_live(component_type):
        return found
    return {key: Effect.COMPONENT if effect is Effect.LIVE else effect for key, effect in found.items()}
