"""The commands about settings, and the shapes of their answers.

Nothing here ever holds the value of a secret: it shows as `***`, a reference to one (`vault:name`) as it is. Boundary:
declarations only; `kernel/configuration.py` answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from magmobo.contracts.commands import Command
from magmobo.contracts.settings import Effect

SettingKey = Annotated[
    str, Meta(max_length=200, pattern=r"^[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+(\[[0-9]{1,4}\])?){1,8}(?![\s\S])")
]


class ConfigEntry(Struct, frozen=True):
    """One setting as it counts now.

    `origin` is a line for people: `mag.toml line 12`, `environment MAG_MAGDS__DSN`, `default`. `layer` is its kind:
    `default`, `demo`, `generated`, `file`, `secrets`, `vault`, `environment`, `credentials`, `command line`,
    `override` or `patch`. `reference`: what the secret was taken from, `vault:name` for instance. `waiting`: the layers
    say something else, which counts after a restart of the node. `expires_at`: RFC 3339, of a patch.
    """

    key: str
    value: Any
    origin: str
    layer: str
    effect: Effect
    is_secret: bool = False
    reference: str = ""
    waiting: bool = False
    expires_at: str = ""


class ConfigTree(Struct, frozen=True):
    """Every setting. `held`: an older version was taken back and counts although the files say something else.

    `refused`: why the last reload did not take effect, when nothing has since.
    """

    version: int
    environment: str
    entries: Sequence[ConfigEntry]
    held: bool = False
    refused: str = ""


class ShowConfig(Command, frozen=True, kw_only=True):
    """The settings that count, with who set each of them."""

    name = "config:show"
    summary = "The settings that count, and who set them."
    capability = "kernel.config.read"
    reply = ConfigTree
    prefix: Annotated[str, Meta(max_length=200)] = ""


class ConfigChange(Struct, frozen=True):
    """One key that differs. `old` and `new` are None where the key is not set and has no default."""

    key: str
    old: Any
    new: Any
    origin: str
    effect: Effect
    is_secret: bool = False


class ReloadPlan(Struct, frozen=True):
    """What a reload would do, or did. Names are of components; `core` stands for the node itself.

    `live` take their keys while they serve, `restarts` are made anew in this order, `waiting` are keys that count after
    a restart of the node only.
    """

    changes: Sequence[ConfigChange]
    live: Sequence[str] = ()
    restarts: Sequence[str] = ()
    waiting: Sequence[str] = ()


class ReloadOutcome(Struct, frozen=True):
    """What became of a reload. `version` is the one that counts now; `applied` is False for a dry run, and when there
    was nothing to change.
    """

    version: int
    applied: bool
    plan: ReloadPlan
    duration_s: float = 0.0


class DiffConfig(Command, frozen=True, kw_only=True):
    """What a reload would change now, asking nobody; with `version`, what going back to it would change."""

    name = "config:diff"
    summary = "What a reload would change."
    capability = "kernel.config.read"
    reply = ReloadPlan
    version: Annotated[int, Meta(ge=1)] | None = None
    accept_removed: bool = False


class ReloadConfig(Command, frozen=True, kw_only=True):
    """Read the layers again and let what changed take effect, wholly or not at all.

    `accept_removed`: a file that is gone, or ends earlier than before, is meant to. A dry run asks every component that
    would be told live whether it could.
    """

    name = "config:reload"
    summary = "Read the settings again and apply them."
    capability = "kernel.config.reload"
    audit_action = "config.reload"
    reply = ReloadOutcome
    dry_run = True
    accept_removed: bool = False


class RollbackConfig(Command, frozen=True, kw_only=True):
    """Let an older version count again, by default the one before this; it counts until the files change."""

    name = "config:rollback"
    summary = "Go back to an older version of the settings."
    capability = "kernel.config.reload"
    audit_action = "config.rollback"
    reply = ReloadOutcome
    dry_run = True
    version: Annotated[int, Meta(ge=1)] | None = None


class ConfigVersion(Struct, frozen=True):
    """One version that counted once. `at` is RFC 3339; `trigger` as of the event `config.reloaded`, or `boot`.

    `restorable`: `config:rollback` can go back to it.
    """

    version: int
    at: str
    trigger: str
    actor: str
    changed_keys: Sequence[str]
    running: bool
    restorable: bool
    note: str = ""


class ConfigVersions(Struct, frozen=True):
    """Newest first."""

    versions: Sequence[ConfigVersion]


class ConfigHistory(Command, frozen=True, kw_only=True):
    """The versions that counted, newest first."""

    name = "config:history"
    summary = "Which settings counted when, and who changed them."
    capability = "kernel.config.read"
    reply = ConfigVersions
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class SetConfig(Command, frozen=True, kw_only=True):
    """Set one key above every other layer; with `ttl_s` for that long only, otherwise until it is unset.

    `value` is read as the type of the key: text, or JSON for lists and tables. Of a key that holds a secret only a
    reference is taken.
    """

    name = "config:set"
    summary = "Set one key, for a time or for good."
    capability = "kernel.config.patch"
    audit_action = "config.patch"
    reply = ReloadOutcome
    dry_run = True
    key: SettingKey
    value: Annotated[str, Meta(max_length=16_384)]
    ttl_s: Annotated[float, Meta(gt=0, le=2_592_000)] | None = None


class UnsetConfig(Command, frozen=True, kw_only=True):
    """Take back what `config:set` set for this key; the layers below count again."""

    name = "config:unset"
    summary = "Take back what config:set set."
    capability = "kernel.config.patch"
    audit_action = "config.patch"
    reply = ReloadOutcome
    dry_run = True
    key: SettingKey


CONFIGURATION: Sequence[type[Command]] = (
    ShowConfig, DiffConfig, ReloadConfig, RollbackConfig, ConfigHistory, SetConfig, UnsetConfig,
)  # fmt: skip
