"""What the adapters refuse: to extensions that ask for too much, and to clients of extensions' endpoints."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class ChannelNotGranted(MagError):
    """An extension wants to send to a channel that its capability `realtime.broadcast` does not name."""

    code = "MAG-EXT-270"
    http_status = 403
    remedy = "Name the channel in `channels` of the manifest; `mag extension:show ID` shows which are granted."

    def __init__(self, extension: str, channel: str) -> None:
        super().__init__(extension, channel)
        self.extension, self.channel = extension, channel

    def __str__(self) -> str:
        return f"{self.extension} may not send to channel {self.channel}"


class ChannelReserved(MagError):
    """An extension wants to send what only the node sends: on a table's channel, or an event of the protocol itself."""

    code = "MAG-EXT-271"
    http_status = 403
    remedy = "Use a channel and an event name of your own; to send on a table's channel, change the table."

    def __init__(self, extension: str, what: str) -> None:
        super().__init__(extension, what)
        self.extension, self.what = extension, what

    def __str__(self) -> str:
        return f"{self.extension} may not send {self.what}: it is the node's own"


class MessageTooLarge(MagError):
    """The data of a message is larger than an extension may send at once, or is not what JSON can say."""

    code = "MAG-EXT-272"
    http_status = 413
    remedy = "Send less: what changed, or where to read it."

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the data is no JSON of at most {self.limit_bytes} bytes"


class EndpointNotFound(MagError):
    """No enabled extension answers at this path."""

    code = "MAG-EXT-273"
    http_status = 404
    remedy = "`mag extension:show ID` lists the endpoints of an extension; they begin with /ext/<id>/."

    def __str__(self) -> str:
        return "no extension answers here"


class EndpointMethodRefused(MagError):
    """An extension answers at this path, to other methods."""

    code = "MAG-EXT-274"
    http_status = 405
    remedy = "Use one of the methods of the Allow header."

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(method, allowed)
        self.method, self.allowed = method, allowed

    def __str__(self) -> str:
        return f"{self.method} is not answered here; these are: {self.allowed}"


class EndpointNeedsToken(MagError):
    """An endpoint that is not public was asked by nobody in particular."""

    code = "MAG-EXT-275"
    http_status = 401
    remedy = "Send `Authorization: Bearer <JWT>`, as for REST."

    def __str__(self) -> str:
        return "this endpoint answers only to requests with a token"


class EndpointBodyTooLarge(MagError):
    """The body of a request is larger than an extension may be told."""

    code = "MAG-EXT-276"
    http_status = 413
    remedy = "Send it in several requests."

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the body is larger than {self.limit_bytes} bytes"


class EndpointBusy(MagError):
    """As many requests to an extension's endpoints are under way as may be."""

    code = "MAG-EXT-277"
    http_status = 503
    retryable = True
    remedy = "Try again in a moment."

    def __init__(self, extension: str) -> None:
        super().__init__(extension)
        self.extension = extension

    def __str__(self) -> str:
        return f"{self.extension} has too many requests to answer"


class EndpointLimited(MagError):
    """An extension could not answer because the node lets it ask no more for now: the rate or the day's budget of a
    capability is used up. `retry_s`: for so long.
    """

    code = "MAG-EXT-287"
    http_status = 503
    retryable = True
    remedy = "Wait as long as Retry-After says; `mag extension:grant ID CAPABILITY` raises a rate or a budget."

    def __init__(self, extension: str, retry_s: float) -> None:
        super().__init__(extension, retry_s)
        self.extension, self.retry_s = extension, retry_s

    def __str__(self) -> str:
        return f"{self.extension} met a limit of the node and could not answer"


class EndpointFailed(MagError):
    """An extension failed at a request, or answered with what is no response. What went wrong is in its log."""

    code = "MAG-EXT-278"
    http_status = 502
    remedy = "`mag extension:logs ID` says what went wrong."

    def __init__(self, extension: str) -> None:
        super().__init__(extension)
        self.extension = extension

    def __str__(self) -> str:
        return f"{self.extension} could not answer"


class EndpointRequestRefused(MagError):
    """A request that an extension cannot be told of."""

    code = "MAG-EXT-279"
    http_status = 400
    remedy = "Send a plain request: ASCII headers, a path as the extension documents it, claims of usual size."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
