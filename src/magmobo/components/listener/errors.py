"""Errors of the public port: those that stop it from opening (MAG-NET-00x) and those it answers a client with (01x)."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class ListenError(MagError):
    """The public port cannot be opened at the configured address."""

    code = "MAG-NET-000"
    remedy = "Check listener.host and listener.port; the system's reason is part of the message."

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port, reason)
        self.host, self.port, self.reason = host, port, reason

    def __str__(self) -> str:
        return f"cannot listen on {self.host} port {self.port}: {self.reason}"


class PortTaken(ListenError):
    """Another program, or another node, listens on the configured port."""

    code = "MAG-NET-001"
    remedy = "Stop that program (`ss -ltnp` names it), choose another port with `--port`, or take any with `--port 0`."


class PortForbidden(ListenError):
    """This user may not open the configured port; ports below 1024 usually belong to the administrator."""

    code = "MAG-NET-002"
    remedy = "Choose a port from 1024 up with `--port`, and let a reverse proxy serve 80 and 443."


class AddressUnavailable(ListenError):
    """The configured host is not an address of this machine, or its name cannot be resolved."""

    code = "MAG-NET-003"
    remedy = "Set listener.host to 127.0.0.1, to 0.0.0.0, or to an address that `ip address` shows."


class RouteNotFound(MagError):
    """No component serves this path."""

    code = "MAG-NET-010"
    http_status = 404
    remedy = "Check the path; `mag status` shows the addresses that this node serves."

    def __str__(self) -> str:
        return "nothing is served at this path"


class MountReleased(MagError):
    """The component that serves this path is stopped or restarting."""

    code = "MAG-NET-011"
    http_status = 503
    retryable = True
    remedy = "Try again in a moment; `mag component:list` shows which component is down."

    def __str__(self) -> str:
        return "the component that serves this path is not running now"


class HostNotAllowed(MagError):
    """The Host header names a machine that this node does not answer for (protection against DNS rebinding)."""

    code = "MAG-NET-012"
    http_status = 421
    remedy = "Use the address that the node printed at start, or add the name to listener.allowed_hosts."

    def __str__(self) -> str:
        return "this node does not answer for the host in the Host header"


class BadRequest(MagError):
    """The bytes are not a valid HTTP/1.1 request."""

    code = "MAG-NET-013"
    http_status = 400
    remedy = "Send a well-formed HTTP/1.1 request with one Host header and one way of giving the body's length."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class HeadTooLarge(MagError):
    """The request line and headers are longer than the port accepts."""

    code = "MAG-NET-014"
    http_status = 431
    remedy = "Send fewer or shorter headers (cookies are the usual cause), or raise listener.max_head_bytes."

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(max_head_bytes)
        self.max_head_bytes = max_head_bytes

    def __str__(self) -> str:
        return f"request line and headers together may hold {self.max_head_bytes} bytes"


class RequestTimeout(MagError):
    """A request did not arrive in time."""

    code = "MAG-NET-015"
    http_status = 408
    retryable = True
    remedy = "Send the whole request at once; listener.header_timeout_s is the time there is for its head."

    def __str__(self) -> str:
        return "the request did not arrive in time"


class TooManyConnections(MagError):
    """The port serves as many connections as it may."""

    code = "MAG-NET-016"
    http_status = 503
    retryable = True
    remedy = "Try again later, or raise listener.max_connections (and the limit of open files)."

    def __str__(self) -> str:
        return "the node serves as many connections as it may"


class ApplicationFailed(MagError):
    """A component raised an error nobody expected while it answered a request."""

    code = "MAG-NET-017"
    http_status = 500
    remedy = "Search the log for the correlation id; it shows the component and the cause."

    def __str__(self) -> str:
        return "the node failed to answer this request"


class UpgradeRequired(MagError):
    """This path speaks WebSocket (RFC 6455, version 13) only."""

    code = "MAG-NET-018"
    http_status = 426
    remedy = "Connect with a WebSocket client that sends `Sec-WebSocket-Version: 13`."

    def __str__(self) -> str:
        return "this path serves WebSocket version 13 only"


class UpgradeRefused(MagError):
    """The request to open a WebSocket breaks RFC 6455 section 4."""

    code = "MAG-NET-019"
    http_status = 400
    remedy = "Use a WebSocket client library; it sends the handshake of RFC 6455 section 4."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class MethodNotAllowed(MagError):
    """This path answers GET and HEAD only."""

    code = "MAG-NET-020"
    http_status = 405
    remedy = "Use GET or HEAD."

    def __str__(self) -> str:
        return "this path answers GET and HEAD only"


class Stopping(MagError):
    """The port is closing and the request was not finished in time."""

    code = "MAG-NET-021"
    http_status = 503
    retryable = True
    remedy = "Send the request again once the node is back."

    def __str__(self) -> str:
        return "the node is stopping and did not finish this request"
