"""What the console refuses. None of these texts says anything about the token or the session."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class ConsoleError(MagError):
    """The console cannot answer this request."""

    code = "MAG-CONS-000"
    http_status = 400
    remedy = "Reload the page."


class WrongToken(ConsoleError):
    """The text given at login is not the admin token."""

    code = "MAG-CONS-001"
    http_status = 401
    remedy = "Use the token that `mag up` printed at the first start."

    def __str__(self) -> str:
        return "that is not the admin token"


class SessionNeeded(ConsoleError):
    """There is no session, or it has ended."""

    code = "MAG-CONS-002"
    http_status = 401
    remedy = "Sign in again with the admin token."

    def __str__(self) -> str:
        return "not signed in"


class ForgeryRefused(ConsoleError):
    """A state-changing request came from another site, or without the session's CSRF token."""

    code = "MAG-CONS-003"
    http_status = 403
    remedy = "Reload the console page; other sites cannot act on it."

    def __str__(self) -> str:
        return "this request did not come from the console page"


class TooManyAttempts(ConsoleError):
    """Too many wrong tokens came from this address."""

    code = "MAG-CONS-004"
    http_status = 429
    retryable = True
    remedy = "Wait for the time in Retry-After, then sign in with the right token."

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"too many wrong tokens, try again in {self.retry_after_s:.0f} s"


class BadRequest(ConsoleError):
    """A request to the console is not what its page sends."""

    code = "MAG-CONS-005"
    http_status = 400

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ChannelRefused(ConsoleError):
    """The console signs in to channels of published tables only."""

    code = "MAG-CONS-006"
    http_status = 403
    remedy = "Add the table to magws.tables; the console follows by itself."

    def __str__(self) -> str:
        return "this is not a channel of a published table"
