"""Events of the extension plane: what happens to extensions, and what they say themselves."""

from __future__ import annotations

from magmobo.contracts.events.event import Event


class ExtensionInstalled(Event, frozen=True, gc=False):
    """An extension is there; it does not run yet."""

    topic = "extension.installed"
    extension_id: str
    version: str
    reason: str = ""


class ExtensionEnabled(Event, frozen=True, gc=False):
    """An extension serves."""

    topic = "extension.enabled"
    extension_id: str
    version: str
    reason: str = ""


class ExtensionDisabled(Event, frozen=True, gc=False):
    """An extension was stopped; `reason` says by whom or why."""

    topic = "extension.disabled"
    extension_id: str
    version: str
    reason: str = ""


class ExtensionUpgraded(Event, frozen=True, gc=False):
    """Another version of an extension serves; a way back is one too, with its `reason`."""

    topic = "extension.upgraded"
    extension_id: str
    version: str
    previous: str
    reason: str = ""


class ExtensionUninstalled(Event, frozen=True, gc=False):
    """An extension is gone; `reason` says whether its data went too."""

    topic = "extension.uninstalled"
    extension_id: str
    version: str
    reason: str = ""


class ExtensionError(Event, frozen=True, gc=False):
    """Something of an extension failed: its worker ended, its start, a hook. `reason` begins with a stable code."""

    topic = "extension.error"
    extension_id: str
    version: str
    reason: str


class ExtensionHealthStatusChanged(Event, frozen=True, gc=False):
    """What an extension says of itself became something else."""

    topic = "extension.health_status.changed"
    extension_id: str
    old_status: str
    new_status: str
    reason: str = ""


class ExtensionBackpressureWarning(Event, frozen=True, gc=False):
    """Half of the events that may wait for an extension wait for it."""

    topic = "extension.backpressure.warning"
    extension_id: str
    waiting: int
    limit: int


class ExtensionBackpressureCritical(Event, frozen=True, gc=False):
    """More events came for an extension than may wait: it is told of a gap instead of the oldest."""

    topic = "extension.backpressure.critical"
    extension_id: str
    waiting: int
    limit: int


class ExtensionEscapeAttempt(Event, frozen=True, gc=False):
    """A worker did what no honest extension does; it was ended and the extension disabled. `what` is the system call's
    number or the fault of a frame.
    """

    topic = "extension.escape_attempt"
    extension_id: str
    version: str
    what: str


class ExtensionPublished(Event, frozen=True, gc=False):
    """An event that an extension published. `name` is what it called it; `payload` is JSON text."""

    topic = "extension.published"
    private = ("payload",)
    extension_id: str
    name: str
    payload: str
