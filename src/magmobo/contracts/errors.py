"""The tree of errors we raise on purpose.

Rules: every class has a stable `code` of its own, listed in docs/errors.md (a test compares them) and explained by
`mag explain CODE`. The docstring says the cause, `remedy` the next step. Facts are attributes passed to `super()`, the
text is built in `__str__`, so an error survives pickling. No text ever holds a secret. Each package keeps its own
errors
in a module named `errors.py`; this file holds the root and those several packages raise.
"""

from __future__ import annotations

from typing import ClassVar


class MagError(Exception):
    """Something MagMoBo refuses or cannot do."""

    code: ClassVar[str] = "MAG-CORE-000"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    remedy: ClassVar[str] = "Read the log in the data folder under logs/ and run `mag doctor`."

    def next_step(self) -> str:
        """What the reader should do now; a subclass may name the exact command."""
        return self.remedy

    def what_next(self) -> str:
        """The next step, and what was noted (`add_note`) while the error was on its way."""
        return " ".join([self.next_step(), *getattr(self, "__notes__", ())])


class Unavailable(MagError):
    """A component that this call needs is not running now."""

    code = "MAG-CORE-001"
    http_status = 503
    retryable = True
    remedy = "Try again in a moment; `mag component:list` shows which component is down."

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is not available right now"


class DeadlineExceeded(MagError):
    """An operation did not finish inside its deadline."""

    code = "MAG-CORE-002"
    exit_code = 7
    http_status = 504
    retryable = True
    remedy = "Try again with a longer deadline. Of a node that hangs, `mag diagnostics:dump` keeps what it waits for."

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(what, timeout_s)
        self.what, self.timeout_s = what, timeout_s

    def __str__(self) -> str:
        return f"{self.what} did not finish within {self.timeout_s:g} s"


class ConfigError(MagError):
    """A setting is unknown, missing or holds a value it does not accept; nothing was changed."""

    code = "MAG-CONF-001"
    exit_code = 5
    http_status = 500
    remedy = "Correct the named setting; `mag config:schema` holds every key, and docs/configuration.md ours."

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(self.problems)


class ReloadRefused(MagError):
    """A component cannot take the new settings; none of them took effect, in no component."""

    code = "MAG-CONF-003"
    exit_code = 5
    http_status = 422
    remedy = "Correct what is named and reload again; `mag config:diff` shows what would change."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class VaultUnavailable(MagError):
    """The vault cannot be read or written now: its file, its key or its server is missing, wrong or damaged."""

    code = "MAG-VAULT-001"
    http_status = 503
    retryable = True
    remedy = "Look at the named reason; `mag runbook vault` says how to get the key or a copy back."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the vault is not available: {self.reason}"


class SecretUnknown(MagError):
    """The vault holds no secret of that name, or not that version of it."""

    code = "MAG-VAULT-002"
    http_status = 404
    remedy = "`mag vault:list` names what is there; `mag vault:set NAME` stores one."

    def __init__(self, name: str, version: int | None = None) -> None:
        super().__init__(name, version)
        self.name, self.version = name, version

    def __str__(self) -> str:
        which = "" if self.version is None else f" in version {self.version}"
        return f'the vault holds no secret "{self.name}"{which}'


class StateUnavailable(MagError):
    """The durable state of the node cannot be read or written now; the call changed nothing."""

    code = "MAG-STATE-001"
    http_status = 503
    retryable = True
    remedy = "Look at the named reason: room on the disk, owner and mode of the data folder, another process using it."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the state store is not available: {self.reason}"


class VersionConflict(MagError):
    """Somebody else wrote this key of the state since the caller read it; nothing was changed."""

    code = "MAG-STATE-002"
    http_status = 409
    retryable = True
    remedy = "Read the entry again and decide anew."

    def __init__(self, key: str, expected_version: int, found_version: int) -> None:
        super().__init__(key, expected_version, found_version)
        self.key, self.expected_version, self.found_version = key, expected_version, found_version

    def __str__(self) -> str:
        return f'"{self.key}" has version {self.found_version}, expected {self.expected_version} (0: it does not exist)'


class StateValueRefused(MagError):
    """A key or value that the state store does not take; nothing was changed."""

    code = "MAG-STATE-003"
    http_status = 422
    remedy = "Keys are 1 to 200 characters; a value is what JSON can say, at most 1 MiB of it."

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f'"{self.key}" is not kept in the state store: {self.reason}'


class AuditUnavailable(MagError):
    """The audit log cannot be written or read now; a privileged action that it should have recorded did not happen."""

    code = "MAG-AUDIT-001"
    http_status = 503
    retryable = True
    remedy = "Look at the named reason: room on the disk of the data folder, its owner and mode. Then try again."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the audit log is not available: {self.reason}"


class UnknownAuditAction(MagError):
    """An action that the audit catalogue does not list; nothing was written and nothing was done."""

    code = "MAG-AUDIT-002"
    remedy = "This is a defect: enter the action into the audit catalogue (kernel/audit/catalogue.py)."

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action

    def __str__(self) -> str:
        return f'the audit catalogue has no action "{self.action}"'


class HookDenied(MagError):
    """An extension that guards this operation refused it; `retry_s`: for so long, 0 where it did not say."""

    code = "MAG-EXT-001"
    http_status = 403
    remedy = "The named extension says why; `mag extension:show ID` shows what it guards and who approved that."

    def __init__(self, point: str, extension: str, reason: str, retry_s: float = 0.0) -> None:
        super().__init__(point, extension, reason, retry_s)
        self.point, self.extension, self.reason, self.retry_s = point, extension, reason, retry_s

    def __str__(self) -> str:
        return f"{self.extension} denied it: {self.reason}"


class HookUnavailable(MagError):
    """An extension that must be asked first does not answer, and its hook fails closed; `retry_s`: for so long, 0 where
    that is not known.
    """

    code = "MAG-EXT-002"
    http_status = 503
    retryable = True
    remedy = (
        "`mag extension:list` shows how it is, `mag extension:logs ID` what it said; "
        "`mag extension:disable ID` takes it out of the way."
    )

    def __init__(self, point: str, extension: str, reason: str, retry_s: float = 0.0) -> None:
        super().__init__(point, extension, reason, retry_s)
        self.point, self.extension, self.reason, self.retry_s = point, extension, reason, retry_s

    def __str__(self) -> str:
        return f"{self.extension} must allow this and does not answer: {self.reason}"
