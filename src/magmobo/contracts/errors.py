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
    remedy = "Try again with a longer deadline; `mag status` shows what is slow."

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
    remedy = "Correct the named setting; docs/configuration.md lists every key with its default."

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(self.problems)
