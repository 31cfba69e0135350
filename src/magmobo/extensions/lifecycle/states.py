"""Where an extension is in its life, and which state may follow which.

`verifying` and `installing` are never stored: a package is looked at in memory, and an installation is one transaction.
Of the stored ones `enabling`, `disabling`, `upgrading` and `uninstalling` are the journal: found without a node that is
at it, they are led back or to their end by `recovery`. How well an extension is, is another matter (`health`).
Source: CONTRACTS section 6.
"""

from __future__ import annotations

from enum import StrEnum

from magmobo.extensions.lifecycle.errors import ExtensionBusyWith


class State(StrEnum):
    """Where an extension is in its life; the same on all nodes of a database."""

    NOT_INSTALLED = "not_installed"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    INSTALLED = "installed"
    ENABLING = "enabling"
    ENABLED = "enabled"
    DISABLING = "disabling"
    DISABLED = "disabled"
    UPGRADING = "upgrading"
    UNINSTALLING = "uninstalling"
    ERROR = "error"


_RESTING = frozenset({State.INSTALLED, State.DISABLED, State.ERROR})
TRANSITIONS: dict[State, frozenset[State]] = {
    State.NOT_INSTALLED: frozenset({State.VERIFYING}),
    State.VERIFYING: frozenset({State.INSTALLING, State.NOT_INSTALLED}),
    State.INSTALLING: frozenset({State.INSTALLED, State.NOT_INSTALLED}),
    State.INSTALLED: frozenset({State.ENABLING, State.UPGRADING, State.UNINSTALLING}),
    State.ENABLING: frozenset({State.ENABLED, *_RESTING}),
    State.ENABLED: frozenset({State.DISABLING, State.UPGRADING}),
    State.DISABLING: frozenset({State.DISABLED}),
    State.DISABLED: frozenset({State.ENABLING, State.UPGRADING, State.UNINSTALLING}),
    State.UPGRADING: frozenset({State.ENABLED, *_RESTING}),
    State.UNINSTALLING: frozenset({State.NOT_INSTALLED, State.ERROR}),
    State.ERROR: frozenset({State.ENABLING, State.UPGRADING, State.UNINSTALLING}),
}
STORED = frozenset(State) - {State.NOT_INSTALLED, State.VERIFYING, State.INSTALLING}
UNDER_WAY = frozenset({State.ENABLING, State.DISABLING, State.UPGRADING, State.UNINSTALLING})
"""States that somebody is at; those are left behind by a node that died."""
MAY_RUN = frozenset({State.ENABLING, State.ENABLED, State.DISABLING, State.UPGRADING})
"""States in which a worker of it may be there."""


def check(extension_id: str, old: State, new: State) -> None:
    """Raises: ExtensionBusyWith when `new` may not follow `old`; nothing is changed then."""
    if new not in TRANSITIONS[old]:
        raise ExtensionBusyWith(extension_id, old, new)
