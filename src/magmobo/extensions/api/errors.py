"""Why the node did not make a request for an extension, or could not use the answer."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class UrlRefused(MagError):
    """The address of a request is not a plain `http://` or `https://` URL."""

    code = "MAG-EXT-280"
    http_status = 400
    remedy = "Write https://host[:port]/path?query in ASCII, without user, password, spaces or backslashes."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the URL is refused: {self.reason}"


class HostNotGranted(MagError):
    """An extension asked for a host that its capability `network.outbound` does not name."""

    code = "MAG-EXT-281"
    http_status = 403
    remedy = "Name the host in `hosts` of the manifest; `mag extension:show ID` shows which are granted."

    def __init__(self, extension: str, host: str) -> None:
        super().__init__(extension, host)
        self.extension, self.host = extension, host

    def __str__(self) -> str:
        return f"{self.extension} may not send requests to {self.host}"


class AddressRefused(MagError):
    """A host's name leads to an address that is not one of the public internet: this machine, a private network, a
    cloud's metadata service.
    """

    code = "MAG-EXT-282"
    http_status = 403
    remedy = "An admin may let extensions reach a private network with the setting `extensions.http_networks`."

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return f"{self.host} leads to an address that extensions may not reach"


class HeaderRefused(MagError):
    """A header of a request is malformed, or belongs to the connection, which is the node's."""

    code = "MAG-EXT-283"
    http_status = 400
    remedy = "Leave out host, content-length, connection and their like; values are printable ASCII."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"a header is refused: {self.reason}"


class RequestFailed(MagError):
    """The other server could not be reached, or did not speak HTTP."""

    code = "MAG-EXT-284"
    http_status = 502
    retryable = True
    remedy = "Look whether the host is up and its certificate valid; then try again."

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host, self.reason = host, reason

    def __str__(self) -> str:
        return f"the request to {self.host} failed: {self.reason}"


class ResponseTooLarge(MagError):
    """The other server answered with more than an extension may be told."""

    code = "MAG-EXT-285"
    http_status = 502
    remedy = "Ask for less at once, for instance for a page of it."

    def __init__(self, host: str, limit_bytes: int) -> None:
        super().__init__(host, limit_bytes)
        self.host, self.limit_bytes = host, limit_bytes

    def __str__(self) -> str:
        return f"{self.host} answered with more than {self.limit_bytes} bytes"


class TooManyRedirects(MagError):
    """The other server sent the request from one place to the next and did not stop."""

    code = "MAG-EXT-286"
    http_status = 502
    remedy = "Ask for the final address."

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the request was redirected more than {self.limit} times"
