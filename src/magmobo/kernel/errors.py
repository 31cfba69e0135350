"""What the kernel refuses: components that do not fit together, a boot that cannot finish, an unreadable file."""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.errors import ConfigError, MagError


class ConfigFileError(ConfigError):
    """A configuration file is missing, unreadable, empty, or not valid TOML; defaults are never used in its place."""

    code = "MAG-CONF-002"
    remedy = "Correct or restore the named file, or do not name it."


class RegistryError(MagError):
    """The components of this node do not fit together."""

    code = "MAG-REG-001"
    exit_code = 5
    remedy = "Check the list of components of this node."


class DuplicateComponent(RegistryError):
    """Two components carry the same name."""

    code = "MAG-REG-002"
    remedy = "Give one of them another name, or list it once."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f'two components are named "{self.name}"'


class MissingProvider(RegistryError):
    """A component needs a Protocol that nobody in this node provides."""

    code = "MAG-REG-003"
    remedy = "Add a component that provides it, or leave out the one that needs it."

    def __init__(self, component: str, protocol: str) -> None:
        super().__init__(component, protocol)
        self.component, self.protocol = component, protocol

    def __str__(self) -> str:
        return f'component "{self.component}" needs {self.protocol}, which no component of this node provides'


class AmbiguousProvider(RegistryError):
    """Two components provide the same Protocol, so it is undecided whom a consumer gets."""

    code = "MAG-REG-004"
    remedy = "Keep one of the two components."

    def __init__(self, protocol: str, first: str, second: str) -> None:
        super().__init__(protocol, first, second)
        self.protocol, self.first, self.second = protocol, first, second

    def __str__(self) -> str:
        return f'{self.protocol} is provided by both "{self.first}" and "{self.second}"'


class DependencyCycle(RegistryError):
    """Components wait for each other in a circle, so none can be first."""

    code = "MAG-REG-005"
    remedy = "Break the circle: turn one `Needs` into an event, or move what both need into a third component."

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(path)
        self.path = tuple(path)

    def __str__(self) -> str:
        return "components need each other in a circle: " + " -> ".join(self.path)


class BadDeclaration(RegistryError):
    """A component class cannot be read: no valid name, or a constructor the kernel does not understand."""

    code = "MAG-REG-006"
    remedy = "A component has a `name` and a constructor of `context: Context`, `Needs[...]` and `Wants[...]` only."

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(component, reason)
        self.component, self.reason = component, reason

    def __str__(self) -> str:
        return f'component "{self.component}": {self.reason}'


class UnknownComponent(RegistryError):
    """No component of this node has that name."""

    code = "MAG-REG-007"
    exit_code = 2
    http_status = 404
    remedy = "`mag component:list` shows the names."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f'there is no component "{self.name}"'


class IllegalTransition(MagError):
    """A component was asked to go from one state to another that does not follow it."""

    code = "MAG-LIFE-001"
    http_status = 409
    remedy = "`mag component:list` shows the present state; stop what runs before starting it again."

    def __init__(self, component: str, old_state: str, new_state: str) -> None:
        super().__init__(component, old_state, new_state)
        self.component, self.old_state, self.new_state = component, old_state, new_state

    def __str__(self) -> str:
        return f'component "{self.component}" cannot go from {self.old_state} to {self.new_state}'


class BootFailed(MagError):
    """The node did not become ready; what had been started was rolled back. `cause` says why."""

    code = "MAG-BOOT-001"

    def __init__(self, stage: str, component: str, phase: str, cause: BaseException) -> None:
        super().__init__(stage, component, phase, cause)
        self.stage, self.component, self.phase, self.cause = stage, component, phase, cause
        self.exit_code = cause.exit_code if isinstance(cause, MagError) else MagError.exit_code  # type: ignore[misc]

    def __str__(self) -> str:
        where = f'component "{self.component}", {self.phase}' if self.component else self.stage
        return f"the node did not start ({where}): {describe(self.cause)}"

    def next_step(self) -> str:
        return self.cause.next_step() if isinstance(self.cause, MagError) else self.remedy


class PhaseTimeout(MagError):
    """A component did not finish booting, starting or stopping within its deadline; `where` is the line it waits at."""

    code = "MAG-BOOT-002"
    exit_code = 7
    remedy = "Raise kernel.start_timeout_s if the machine is slow; else look at what the named line waits for."

    def __init__(self, component: str, phase: str, timeout_s: float, where: str) -> None:
        super().__init__(component, phase, timeout_s, where)
        self.component, self.phase, self.timeout_s, self.where = component, phase, timeout_s, where

    def __str__(self) -> str:
        return f'{self.phase} of "{self.component}" did not finish within {self.timeout_s:g} s, waiting at {self.where}'


class SelfTestFailed(MagError):
    """A check before the boot found that the node could not work here."""

    code = "MAG-BOOT-003"
    remedy = "Give the node a data folder that it owns and can write to (--data-dir)."

    def __init__(self, check: str, reason: str) -> None:
        super().__init__(check, reason)
        self.check, self.reason = check, reason

    def __str__(self) -> str:
        return f"{self.check}: {self.reason}"


def describe(error: BaseException) -> str:
    """An error in one line for people: its text, its class when it is not ours, and its code when it has one."""
    if isinstance(error, MagError):
        return f"{error} [{error.code}]"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
