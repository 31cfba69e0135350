"""Why a node does not start, besides its data folder, its settings and its components' own reasons."""

from __future__ import annotations

from magmobo.contracts.errors import ConfigError, MagError


class ComponentNotLoadable(MagError):
    """A name in the list of components cannot be imported, or is not a component."""

    code = "MAG-CORE-017"
    exit_code = 5
    remedy = (
        "Correct the name (`module:Class`, or that of an installed one), or install the package that holds it; "
        "of a module that is not installed the folder belongs into PYTHONPATH."
    )

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"component {self.name} cannot be loaded: {self.reason}"


class DemoUnknown(MagError):
    """No demo has that name."""

    code = "MAG-CORE-018"
    exit_code = 2
    remedy = "Run `mag up --demo tasks` or `mag up --demo flights`."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no demo {self.name[:40]!r}"


class StartInterrupted(MagError):
    """The node was told to stop while it started; what had been started was rolled back."""

    code = "MAG-CORE-019"
    exit_code = 130
    remedy = "Run `mag up` again; everything that had been committed is still there."

    def __str__(self) -> str:
        return "the start was interrupted"


class RuntimeSettingRefused(ConfigError):
    """Something that `config:set` set, and that outlives the node, is not accepted any more, as after an upgrade."""

    code = "MAG-CONF-050"
    remedy = "Start with `mag up --safe`, take the named key back with `mag config:unset KEY`, then start as usual."


class HeldVersionLost(MagError):
    """The settings were taken back to a version that cannot be restored any more, and the node does not choose others
    by itself.
    """

    code = "MAG-CONF-051"
    exit_code = 5
    remedy = (
        "Start with `mag up --safe` and choose a version with `mag config:rollback VERSION` (`mag config:history` "
        "lists them), or change mag.toml: then the files count. Start as usual after it."
    )

    def __init__(self, version: int, reason: str) -> None:
        super().__init__(version, reason)
        self.version, self.reason = version, reason

    def __str__(self) -> str:
        return f"version {self.version} of the settings counts until the files change: {self.reason}"


class NodeEnded(MagError):
    """The node ended by itself: a component it cannot do without is quarantined, or a reset did not bring it back."""

    code = "MAG-CORE-023"
    remedy = "Read `mag logs` for the component's error; `mag runbook component-restart` has the steps."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the node ended: {self.reason}"
