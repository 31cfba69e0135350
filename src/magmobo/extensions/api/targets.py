"""The address of one request, taken apart: what is not plainly a URL of a named host is refused, not interpreted.

Two readers that understand one text differently are how such filters are got around, so there is one reader: what it
takes apart is what is connected to and what is sent. Boundary: text alone, no I/O. Source: RFC 3986, with less in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urljoin

from msgspec import Struct

from magmobo.extensions.api.errors import UrlRefused
from magmobo.extensions.package.scopes import parse_host

MAX_URL_CHARS = 8_192
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_CHARS = r"[A-Za-z0-9\-._~%!$&'()*+,;=:@/?\[\]]*"
_URL = re.compile(
    rf"([Hh][Tt][Tt][Pp][Ss]?)://({_LABEL}(?:\.{_LABEL}){{0,20}})(?::([0-9]{{1,5}}))?([/?]{_CHARS})?(?:#.*)?"
)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Target(Struct, frozen=True):
    """Where a request goes. `path` begins with a slash and holds the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Requests with the same origin go to the same server."""
        return self.scheme, self.host, self.port

    @property
    def is_default_port(self) -> bool:
        """Whether the port goes without saying."""
        return _DEFAULT_PORTS[self.scheme] == self.port

    @property
    def place(self) -> str:
        """Host, and port where it does not go without saying."""
        return self.host if self.is_default_port else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """As one text."""
        return f"{self.scheme}://{self.place}{self.path}"


def parse(url: str) -> Target:
    """Take a URL apart. Raises: UrlRefused.

    >>> parse("https://API.example.com/v1?x=1#part")
    Target(scheme='https', host='api.example.com', port=443, path='/v1?x=1')
    """
    if len(url) > MAX_URL_CHARS:
        raise UrlRefused(f"it is longer than {MAX_URL_CHARS} characters")
    found = _URL.fullmatch(url)
    if found is None:
        raise UrlRefused("expected http:// or https://, the name of a host, and a path")
    scheme, host = found[1].lower(), found[2].lower()
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise UrlRefused("expected the name of a host, not an address")
    port = int(found[3]) if found[3] else _DEFAULT_PORTS[scheme]
    if not 0 < port < 65_536 or len(host) > 253:
        raise UrlRefused("the host or the port is out of bounds")
    path = found[4] or "/"
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")


def follow(target: Target, location: str) -> Target:
    """Where a redirect leads. Raises: UrlRefused, also for one from https to http."""
    try:
        joined = urljoin(target.url, location)
    except ValueError as error:
        raise UrlRefused("a redirect leads nowhere") from error
    after = parse(joined)
    if target.scheme == "https" and after.scheme != "https":
        raise UrlRefused("a redirect leads from https to http")
    return after


def is_granted(target: Target, hosts: Sequence[str]) -> bool:
    """Whether one of `hosts` (as in a manifest) means this host. Without a port it means the usual ones."""
    return any(_means(entry, target) for entry in hosts)


def _means(entry: str, target: Target) -> bool:
    try:
        name, port = parse_host(entry)
    except ValueError:
        return False
    if target.port != port if port is not None else not target.is_default_port:
        return False
    if name.startswith("*."):
        return target.host.endswith(name[1:])
    return target.host == name
