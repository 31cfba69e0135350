"""What goes wrong between the node and the process of an extension."""

from __future__ import annotations

from magmobo.contracts.errors import MagError

REASON_CHARS, MESSAGE_CHARS, NAME_CHARS, TRACE_CHARS = 300, 500, 100, 4000
"""Of what an extension says of a no or an error: clients, logs and operators get it."""
MAX_RETRY_S = 86_400.0
"""Of how long a no stays one, as an extension says; more is not believed."""
_SEE = "`mag extension:logs ID` shows what it logged, `mag extension:show ID` how it is."


class WorkerUnavailable(MagError):
    """The process of an extension could not be asked inside the call's deadline: it starts, restarts or is stopped."""

    code = "MAG-EXT-130"
    http_status = 503
    retryable = True
    remedy = _SEE

    def __init__(self, extension: str, reason: str) -> None:
        super().__init__(extension, reason)
        self.extension, self.reason = extension, reason

    def __str__(self) -> str:
        return f"{self.extension} cannot be asked: {self.reason}"


class WorkerStartFailed(MagError):
    """The process of an extension did not become ready."""

    code = "MAG-EXT-131"
    http_status = 503
    remedy = _SEE

    def __init__(self, extension: str, reason: str) -> None:
        reason = _line(reason, MESSAGE_CHARS)
        super().__init__(extension, reason)
        self.extension, self.reason = extension, reason

    def __str__(self) -> str:
        return f"{self.extension} did not start: {self.reason}"


class HandlersDiffer(WorkerStartFailed):
    """The code of an extension has other handlers than its manifest names."""

    code = "MAG-EXT-132"
    remedy = "Bring manifest and code together; `mag extension:test` of the author tells the same before installing."

    def __init__(self, extension: str, missing: tuple[str, ...], unknown: tuple[str, ...]) -> None:
        super().__init__(extension, "")
        unknown = tuple(_line(name, NAME_CHARS) for name in unknown)
        self.args = (extension, missing, unknown)
        self.missing, self.unknown = missing, unknown

    def __str__(self) -> str:
        lists = [("is without", self.missing), ("has unasked", self.unknown)]
        said = " and ".join(f"{verb} {', '.join(names[:5])}" for verb, names in lists if names)
        return f"{self.extension}: the code {said}"


class CallTimedOut(MagError):
    """An extension did not answer inside the call's deadline."""

    code = "MAG-EXT-133"
    http_status = 504
    exit_code = 7
    retryable = True
    remedy = _SEE

    def __init__(self, extension: str, handler: str, timeout_s: float) -> None:
        super().__init__(extension, handler, timeout_s)
        self.extension, self.handler, self.timeout_s = extension, handler, timeout_s

    def __str__(self) -> str:
        return f"{self.extension} did not answer {self.handler} within {self.timeout_s * 1000:.0f} ms"


class WorkerEnded(MagError):
    """The process of an extension ended before it answered; a new one is started. `pid` is that of the old."""

    code = "MAG-EXT-134"
    http_status = 502
    retryable = True
    remedy = _SEE

    def __init__(self, extension: str, pid: int) -> None:
        super().__init__(extension, pid)
        self.extension, self.pid = extension, pid

    def __str__(self) -> str:
        return f"{self.extension} ended before it answered"


class HandlerFailed(MagError):
    """A handler of an extension raised an error. `error` is its class, `trace` where, as the extension says; `retry_s`:
    it met a limit on what the extension may ask, which lasts so long.
    """

    code = "MAG-EXT-135"
    http_status = 502
    remedy = _SEE

    def __init__(
        self, extension: str, handler: str, error: str, message: str, trace: str = "", retry_s: float = 0.0
    ) -> None:
        error, message, trace = _line(error, NAME_CHARS), _line(message, MESSAGE_CHARS), trace[-TRACE_CHARS:]
        retry_s = _wait(retry_s)
        super().__init__(extension, handler, error, message, trace, retry_s)
        self.extension, self.handler, self.error, self.message, self.trace = extension, handler, error, message, trace
        self.retry_s = retry_s

    def __str__(self) -> str:
        return f"{self.handler} of {self.extension} raised {self.error}: {self.message}"


class HandlerDenied(MagError):
    """A hook of an extension said no. Chains turn this into HookDenied."""

    code = "MAG-EXT-136"
    http_status = 403
    remedy = "The extension says why; `mag extension:show ID` shows what it guards."

    def __init__(self, extension: str, reason: str, retry_s: float = 0.0) -> None:
        reason, retry_s = _line(reason, REASON_CHARS), _wait(retry_s)
        super().__init__(extension, reason, retry_s)
        self.extension, self.reason, self.retry_s = extension, reason, retry_s

    def __str__(self) -> str:
        return f"{self.extension} denied it: {self.reason}"


class WorkerBusy(MagError):
    """More calls of an extension are under way, or wait, than may."""

    code = "MAG-EXT-137"
    http_status = 503
    retryable = True
    remedy = "Ask less often, or make the extension answer faster; `limits.concurrency` of its manifest is the window."

    def __init__(self, extension: str) -> None:
        super().__init__(extension)
        self.extension = extension

    def __str__(self) -> str:
        return f"{self.extension} has too much to do"


class CallTooLarge(MagError):
    """What an extension is to be told does not fit into a frame of the protocol."""

    code = "MAG-EXT-138"
    http_status = 413
    remedy = "An extension is told at most 1 MiB at once; send less."

    def __init__(self, extension: str, handler: str, reason: str) -> None:
        super().__init__(extension, handler, reason)
        self.extension, self.handler, self.reason = extension, handler, reason

    def __str__(self) -> str:
        return f"{self.handler} of {self.extension} cannot be told so much: {self.reason}"


def _wait(retry_s: float) -> float:
    """How long, as an extension says, 0 for what is not believed; what is no number is not."""
    return retry_s if 0 < retry_s <= MAX_RETRY_S else 0.0


def _line(text: str, chars: int) -> str:
    """One bounded line of what an extension says, with nothing in it that a terminal or a log would obey."""
    cut = text if len(text) <= chars else f"{text[: chars - 1]}…"
    return "".join(char if char.isprintable() else " " for char in cut).strip()
