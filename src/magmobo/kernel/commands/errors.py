"""What the command bus refuses, and what became of a command that did not end well."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from magmobo.contracts.errors import DeadlineExceeded, MagError

_SHOWN_CHARS = 60


class CommandUnknown(MagError):
    """This node has no command of that name: it is misspelt, or the component that answers it does not run here."""

    code = "MAG-CMD-001"
    exit_code = 2
    http_status = 404
    remedy = "`mag kernel:commands` lists the commands of this node."

    def __init__(self, name: str, suggestion: str = "") -> None:
        super().__init__(name, suggestion)
        self.name, self.suggestion = name, suggestion

    def __str__(self) -> str:
        hint = f'; did you mean "{self.suggestion}"?' if self.suggestion else ""
        return f'this node has no command "{shown(self.name)}"{hint}'


class CommandMalformed(MagError):
    """What was sent does not fit the command; nothing was done."""

    code = "MAG-CMD-002"
    exit_code = 2
    http_status = 400
    remedy = "Correct the named fields; `kernel:commands` shows what each command takes."

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        super().__init__(name, problems)
        self.name, self.problems = name, tuple(problems)

    def __str__(self) -> str:
        return f"{self.name}: {'; '.join(self.problems)}"


class CommandTooLarge(MagError):
    """The parameters of a command are larger than the node reads; nothing was done."""

    code = "MAG-CMD-003"
    exit_code = 2
    http_status = 413
    remedy = "Send less in one command."

    def __init__(self, name: str, limit_bytes: int) -> None:
        super().__init__(name, limit_bytes)
        self.name, self.limit_bytes = name, limit_bytes

    def __str__(self) -> str:
        return f"{self.name}: its parameters are larger than {self.limit_bytes} bytes"


class CommandTaken(MagError):
    """A command has exactly one handler, and another one is registered already."""

    code = "MAG-CMD-004"
    remedy = "Give the command another name, or take off the component that answers it now."

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(name, owner)
        self.name, self.owner = name, owner

    def __str__(self) -> str:
        return f'"{self.owner}" answers {self.name} already'


class TooManyCommands(MagError):
    """As many commands as the node takes at once are under way, or never end; nothing was done."""

    code = "MAG-CMD-005"
    http_status = 503
    retryable = True
    remedy = "Try again in a moment."

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} commands are under way, more are not taken at once"


class DryRunRefused(MagError):
    """The command cannot say what it would do without doing it; nothing was done."""

    code = "MAG-CMD-006"
    exit_code = 2
    http_status = 400
    remedy = "Leave out --dry-run; `kernel:commands` shows which commands know it."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} has no dry run"


class CommandTimeout(DeadlineExceeded):
    """A command did not end within its deadline and was cancelled. `where` is the line it waited at."""

    code = "MAG-CMD-007"
    remedy = "Try again with a longer --timeout; else look at what the named line waits for."

    def __init__(self, what: str, timeout_s: float, where: str) -> None:
        super().__init__(what, timeout_s)
        self.args = (what, timeout_s, where)
        self.where = where

    def __str__(self) -> str:
        return f"{super().__str__()}, waiting at {self.where}"


class CommandFailed(MagError):
    """The command failed inside the node in a way nobody foresaw; the log of the node has the details."""

    code = "MAG-CMD-008"
    remedy = "`mag logs` shows the cause at the named trace."

    def __init__(self, name: str, trace_id: str) -> None:
        super().__init__(name, trace_id)
        self.name, self.trace_id = name, trace_id

    def __str__(self) -> str:
        return f"{self.name} failed inside the node (trace {self.trace_id})"


class KeyReused(MagError):
    """An idempotency key stands for one command with one set of parameters, and was sent with another."""

    code = "MAG-CMD-009"
    exit_code = 2
    http_status = 409
    remedy = "Make a new key for each thing you want done; send an old one only to ask for the same thing again."

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f'the idempotency key "{self.key}" was used for something else'


class OutcomeUnknown(MagError):
    """The command was begun under this idempotency key and its answer is not there: the node ended meanwhile, or the
    answer could not be kept. It is not done again.
    """

    code = "MAG-CMD-010"
    http_status = 409
    remedy = "Look at what the command should have changed; if it did not, ask again with a new key."

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f'the idempotency key "{self.key}" was used before, and {self.reason}'


class Failure(Struct, frozen=True):
    """An error as it is kept with an idempotency key."""

    code: str
    text: str
    next_step: str
    exit_code: int
    http_status: int


class EarlierFailure(MagError):
    """The command failed when it was sent with this idempotency key, after it had begun to act; this is the answer it
    gave, under the code it had.
    """

    code = "MAG-CMD-011"
    remedy = "Correct the cause and ask again with a new key."

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure
        # The code, exit code and status of the first answer, as if it came a second time.
        self.code, self.exit_code, self.http_status = failure.code, failure.exit_code, failure.http_status  # type: ignore[misc]

    def __str__(self) -> str:
        return self.failure.text

    def next_step(self) -> str:
        return f"{self.failure.next_step} To try again, use a new idempotency key."


class CommandCancelled(MagError):
    """Whoever sent the command went away before it ended, so it was cancelled; it may have done a part of its work."""

    code = "MAG-CMD-012"
    exit_code = 130
    http_status = 409
    remedy = "Look at what the command should have changed, and ask again if it did not."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} was cancelled by whoever asked for it"


def shown(text: str) -> str:
    """Text from outside as an error may quote it: short, and on one line."""
    cut = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
    return "".join(char if char.isprintable() else "?" for char in cut)
