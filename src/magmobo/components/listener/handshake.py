"""The opening handshake, server's side: a parsed request in, the 101 response and an `Upgrade` out. No I/O.

Extensions and subprotocols are never accepted: declining is done by not naming them.
Source: RFC 6455 section 4.2.
"""

from __future__ import annotations

import base64
import hashlib
import re
import urllib.parse
from collections.abc import Sequence

import httptools

from magmobo.components.listener.errors import UpgradeRefused, UpgradeRequired
from magmobo.contracts.websocket import Upgrade

_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==", re.ASCII)
_ONCE = (b"host", b"upgrade", b"sec-websocket-key", b"sec-websocket-version")
_MAX_QUERY_FIELDS = 64


def parse_upgrade(
    method: str, url: bytes, http_version: str, headers: Sequence[tuple[bytes, bytes]], client: str
) -> Upgrade:
    """What the application gets to see of a valid request to open a WebSocket.

    Args: `headers` with lower-case names, as received. When a query field is repeated, the last one counts.
    Raises: UpgradeRequired for another protocol version; UpgradeRefused for anything else RFC 6455 forbids.
    """
    if method != "GET" or http_version != "1.1":
        raise UpgradeRefused("a WebSocket is opened with GET over HTTP/1.1")
    merged: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in merged:
            if name in _ONCE:
                raise UpgradeRefused(f"the header {name.decode('latin-1')} may appear only once")
            merged[name] += b", " + value
        else:
            merged[name] = value
    if b"transfer-encoding" in merged or merged.get(b"content-length", b"0") != b"0":
        raise UpgradeRefused("a request to open a WebSocket has no body")
    if merged.get(b"sec-websocket-version") != b"13":
        raise UpgradeRequired
    if not _KEY.fullmatch(merged.get(b"sec-websocket-key", b"")):
        raise UpgradeRefused("Sec-WebSocket-Key must be 16 bytes in base64")
    path, query = _split_target(url)
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in merged.items()}
    return Upgrade(path=path, query=query, headers=texts, client=client)


def _split_target(url: bytes) -> tuple[str, dict[str, str]]:
    try:
        target = httptools.parse_url(url)
        path = urllib.parse.unquote((target.path or b"/").decode("ascii"))
        fields = urllib.parse.parse_qsl(
            (target.query or b"").decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS
        )
    except (httptools.HttpParserInvalidURLError, ValueError) as error:
        raise UpgradeRefused("the request target is not a valid URL") from error
    return path, dict(fields)


def accept_response(key: str) -> bytes:
    """The response that switches to WebSocket; `key` is the request's Sec-WebSocket-Key."""
    digest = hashlib.sha1(key.encode("ascii") + _ACCEPT_GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + base64.b64encode(digest)
        + b"\r\n\r\n"
    )
