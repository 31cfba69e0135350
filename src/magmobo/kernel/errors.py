"""What the kernel refuses: components that do not fit together, a boot that cannot finish, an unreadable file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from magmobo.contracts.errors import ConfigError, MagError

_PYTHON = os.__file__.removesuffix("os.py")


class ConfigFileError(ConfigError):
    """A configuration file is missing, unreadable, empty, or not valid TOML; defaults are never used in its place."""

    code = "MAG-CONF-002"
    remedy = "Correct or restore the named file, or do not name it."


class RegistryError(MagError):
    """The components of this node do not fit together. `involved` names those that the refusal is about."""

    code = "MAG-REG-001"
    exit_code = 5
    remedy = "Check the list of components of this node."
    involved: tuple[str, ...] = ()


class DuplicateComponent(RegistryError):
    """Two components carry the same name; `first` and `second` are their classes, as `module:Class`."""

    code = "MAG-REG-002"
    http_status = 409
    remedy = "Give one of them another name, or list it once."

    def __init__(self, name: str, first: str, second: str) -> None:
        super().__init__(name, first, second)
        self.name, self.first, self.second, self.involved = name, first, second, (name,)

    def __str__(self) -> str:
        if self.first == self.second:
            return f'component "{self.name}" is there already: {self.first}'
        return f'two components are named "{self.name}": {self.first} and {self.second}'


class MissingProvider(RegistryError):
    """A component needs a Protocol that nobody in this node provides.

    `idle` names a component that would provide it if it were not disabled or left out, empty when there is none.
    """

    code = "MAG-REG-003"
    http_status = 409
    remedy = "Add a component that provides it, or leave out the one that needs it."

    def __init__(self, component: str, protocol: str, idle: str = "") -> None:
        super().__init__(component, protocol, idle)
        self.component, self.protocol, self.idle, self.involved = component, protocol, idle, (component,)

    def __str__(self) -> str:
        text = f'component "{self.component}" needs {self.protocol}, which no component of this node provides'
        return f'{text}; "{self.idle}" would, but it is disabled or left out' if self.idle else text

    def next_step(self) -> str:
        enable = f"`mag component:enable {self.idle}`, or start the node without leaving it out."
        return enable if self.idle else self.remedy


class AmbiguousProvider(RegistryError):
    """Two components provide the same Protocol, so it is undecided whom a consumer gets."""

    code = "MAG-REG-004"
    http_status = 409
    remedy = "Keep one of the two components."

    def __init__(self, protocol: str, first: str, second: str) -> None:
        super().__init__(protocol, first, second)
        self.protocol, self.first, self.second, self.involved = protocol, first, second, (first, second)

    def __str__(self) -> str:
        return f'{self.protocol} is provided by both "{self.first}" and "{self.second}"'


class DependencyCycle(RegistryError):
    """Components wait for each other in a circle, so none can be first."""

    code = "MAG-REG-005"
    http_status = 409
    remedy = "Break the circle: turn one `Needs` into an event, or move what both need into a third component."

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(path)
        self.path = self.involved = tuple(path)

    def __str__(self) -> str:
        return "components need each other in a circle: " + " -> ".join(self.path)


class BadDeclaration(RegistryError):
    """A component class cannot be read: no valid name, or a constructor the kernel does not understand."""

    code = "MAG-REG-006"
    remedy = "A component has a `name` and a constructor of `context: Context`, `Needs[...]` and `Wants[...]` only."

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(component, reason)
        self.component, self.reason, self.involved = component, reason, (component,)

    def __str__(self) -> str:
        return f'component "{self.component}": {self.reason}'


class UnknownComponent(RegistryError):
    """No component of this node has that name. `known` lists those it has, when that is worth saying."""

    code = "MAG-REG-007"
    exit_code = 2
    http_status = 404
    remedy = "Check the name; `mag component:list` shows those of a running node."

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        super().__init__(name, known)
        self.name, self.known = name, tuple(known)

    def __str__(self) -> str:
        import difflib  # needed by nobody who spells well

        near = difflib.get_close_matches(self.name, self.known, n=1)
        listed = f"; there are {', '.join(self.known)}" if self.known else ""
        return f'there is no component "{self.name}"' + (f'; did you mean "{near[0]}"?' if near else listed)


class StillNeeded(RegistryError):
    """A component cannot leave the node because others cannot do without it.

    `consumers` are all of them, in the order in which they could be taken off.
    """

    code = "MAG-REG-008"
    exit_code = 1
    http_status = 409
    remedy = "Disable or unregister the named components first, in that order; a restart needs neither."

    def __init__(self, name: str, consumers: Sequence[str]) -> None:
        super().__init__(name, consumers)
        self.name, self.consumers, self.involved = name, tuple(consumers), (name, *consumers)

    def __str__(self) -> str:
        return f'component "{self.name}" is needed by {", ".join(self.consumers)}'


class NeedsNotRunning(RegistryError):
    """A component cannot be started because what it needs does not run; `providers` name it."""

    code = "MAG-REG-009"
    exit_code = 1
    http_status = 409
    remedy = "Start the named components first."

    def __init__(self, name: str, providers: Sequence[str]) -> None:
        super().__init__(name, providers)
        self.name, self.providers, self.involved = name, tuple(providers), (name, *providers)

    def __str__(self) -> str:
        return f'component "{self.name}" needs what does not run: {", ".join(self.providers)}'


class SelectionImpossible(RegistryError):
    """A component was asked for by name, and something it cannot do without was left out."""

    code = "MAG-REG-010"
    exit_code = 2
    remedy = "Leave it out of --only, or let start what it needs (--without, kernel.without, `mag component:enable`)."

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason, self.involved = name, reason, (name,)

    def __str__(self) -> str:
        return f'component "{self.name}" cannot start: {self.reason}'


class ComponentNotAdded(RegistryError):
    """A component did not come up in the running node; nothing of it is left there. `cause` says why."""

    code = "MAG-REG-011"
    exit_code = 1
    remedy = "Correct what the cause says, then add it again; the rest of the node was not touched."

    def __init__(self, name: str, phase: str, cause: BaseException) -> None:
        super().__init__(name, phase, cause)
        self.name, self.phase, self.cause, self.involved = name, phase, cause, (name,)

    def __str__(self) -> str:
        return f'component "{self.name}" was not added ({self.phase}): {located(self.cause)}'


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

    def next_step(self) -> str:
        if (self.old_state, self.new_state) == ("disabled", "starting"):
            return f"`mag component:enable {self.component}` lets it start again."
        if (self.old_state, self.new_state) == ("running", "starting"):
            return f"It runs already; `mag component:restart {self.component}` starts it anew."
        return self.remedy


class NotReady(MagError):
    """The node was asked for something that it only does while it is ready."""

    code = "MAG-CORE-022"
    http_status = 503
    retryable = True
    remedy = "Wait until `mag status` says ready, then try again."

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state

    def __str__(self) -> str:
        return f"the node is {self.state}, not ready"


class BootFailed(MagError):
    """The node did not become ready; what had been started was rolled back. `cause` says why.

    `rollback` says what went wrong while taking things back, empty when all of it was.
    """

    code = "MAG-BOOT-001"

    def __init__(self, stage: str, component: str, phase: str, cause: BaseException) -> None:
        super().__init__(stage, component, phase, cause)
        self.stage, self.component, self.phase, self.cause = stage, component, phase, cause
        self.rollback = ""
        self.exit_code = cause.exit_code if isinstance(cause, MagError) else MagError.exit_code  # type: ignore[misc]

    def __str__(self) -> str:
        where = f'component "{self.component}", {self.phase}' if self.component else self.stage
        after = f"; {self.rollback}" if self.rollback else ""
        return f"the node did not start ({where}): {located(self.cause)}{after}"

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

    def __init__(self, check: str, reason: str, advice: str = "") -> None:
        super().__init__(check, reason, advice)
        self.check, self.reason, self.advice = check, reason, advice

    def __str__(self) -> str:
        return f"{self.check}: {self.reason}"

    def next_step(self) -> str:
        return self.advice or self.remedy


class StageTimeout(MagError):
    """A stage of the boot did not end within its deadline. `waiting` lists who was not done: component, phase and the
    line it waits at; component and phase are empty for the kernel itself.
    """

    code = "MAG-BOOT-004"
    exit_code = 7
    remedy = "Raise kernel.stage_timeout_s if the machine is slow; else look at what the named lines wait for."

    def __init__(self, stage: str, timeout_s: float, waiting: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(stage, timeout_s, waiting)
        self.stage, self.timeout_s, self.waiting = stage, timeout_s, tuple(waiting)

    def __str__(self) -> str:
        who = "; ".join(
            f'{phase} of "{component}" waits at {where}' if component else f"the kernel waits at {where}"
            for component, phase, where in self.waiting
        )
        return f"stage {self.stage} did not end within {self.timeout_s:g} s: {who}"


class ReloadTakenBack(MagError):
    """Components did not come up with changed settings, so the former settings were taken back, everywhere."""

    code = "MAG-CONF-030"
    exit_code = 5
    remedy = "Correct what the cause says and reload again; `mag config:diff` shows what would change."

    def __init__(self, reasons: Sequence[str], left: Sequence[str] = ()) -> None:
        super().__init__(reasons, left)
        self.reasons, self.left = tuple(reasons), tuple(left)

    def __str__(self) -> str:
        text = f"the former settings count again: {'; '.join(self.reasons)}"
        return f"{text}; not yet running again with them: {', '.join(self.left)}" if self.left else text


class NoFormerVersion(MagError):
    """There is no older version of the settings to go back to."""

    code = "MAG-CONF-031"
    http_status = 404
    remedy = "`mag config:history` lists the versions that are kept."

    def __str__(self) -> str:
        return "no version of the settings before the present one is kept"


class NotSetAtRuntime(MagError):
    """`config:unset` takes back what `config:set` set, and nothing did for this key."""

    code = "MAG-CONF-032"
    http_status = 404
    remedy = "`mag config:show KEY --origin` says who set it; change it there."

    def __init__(self, key: str, origin: str) -> None:
        super().__init__(key, origin)
        self.key, self.origin = key, origin

    def __str__(self) -> str:
        return f"{self.key} was not set by config:set; it comes from: {self.origin}"


def describe(error: BaseException) -> str:
    """An error for people: its text without secrets, its class when it is not ours, and its code when it has one."""
    from magmobo.kernel.redact import redact_text  # 1 ms that a start without errors does not pay

    text = redact_text(str(error))  # components of others put connection strings into theirs
    if isinstance(error, MagError):
        return f"{text} [{error.code}]"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def located(error: BaseException) -> str:
    """The same, and for an error that is not ours the line that raised it: whoever wrote that line looks for it."""
    place = "" if isinstance(error, MagError) else _raised_at(error)
    return f"{describe(error)}, raised at {place}" if place else describe(error)


def foreign(error: BaseException) -> BaseException | None:
    """The error when it is not ours, so that its traceback is worth the room in the log."""
    return None if isinstance(error, MagError) else error


def _raised_at(error: BaseException) -> str:
    """`file:line in function` of the innermost line outside Python's own library; empty when there is none."""
    from magmobo.kernel.deadline import short_path  # which imports what imports this module

    place, step = "", error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        is_python = code.co_filename.startswith((_PYTHON, "<")) and "site-packages" not in code.co_filename
        if not is_python and "/magmobo/kernel/" not in code.co_filename:
            place = f"{short_path(code.co_filename)}:{step.tb_lineno} in {code.co_name}"
        step = step.tb_next
    return place
