"""The opening handshake as pure rules."""

from __future__ import annotations

import pytest

from magmobo.components.listener.errors import UpgradeRefused, UpgradeRequired
from magmobo.components.listener.handshake import accept_response, parse_upgrade
from magmobo.contracts.websocket import Upgrade

HEADERS = [
    (b"host", b"localhost"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]


def parse(
    headers: list[tuple[bytes, bytes]] = HEADERS, *, method: str = "GET", url: bytes = b"/app/k", version: str = "1.1"
) -> Upgrade:
    return parse_upgrade(method, url, version, headers, "203.0.113.9")


def changed(name: bytes, value: bytes | None) -> list[tuple[bytes, bytes]]:
    kept = [pair for pair in HEADERS if pair[0] != name]
    return kept if value is None else [*kept, (name, value)]


def test_the_application_sees_decoded_path_query_and_headers() -> None:
    headers = [*HEADERS, (b"x-a", b"1"), (b"x-a", b"\xe9")]
    upgrade = parse(headers, url=b"/app/a%20b?protocol=7&v=%C3%A9&empty=&v=last")
    assert upgrade.path == "/app/a b"
    assert upgrade.query == {"protocol": "7", "v": "last", "empty": ""}
    assert upgrade.headers["x-a"] == "1, é"
    assert upgrade.headers["host"] == "localhost"
    assert upgrade.client == "203.0.113.9"


def test_the_accept_value_is_the_one_of_the_rfc() -> None:
    response = accept_response("dGhlIHNhbXBsZSBub25jZQ==")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in response
    assert b"extensions" not in response.lower()


@pytest.mark.parametrize("version", [b"8", b"", b"14", b"13, 8", None])
def test_other_versions_are_told_ours(version: bytes | None) -> None:
    with pytest.raises(UpgradeRequired):
        parse(changed(b"sec-websocket-version", version))


@pytest.mark.parametrize(
    "key",
    [b"", b"short==", b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25jZQ==\n", b"dGhlIHNhbXBsZSBub25j!Q==", None],
)
def test_a_key_that_is_not_16_bytes_in_base64_is_refused(key: bytes | None) -> None:
    with pytest.raises(UpgradeRefused):
        parse(changed(b"sec-websocket-key", key))


@pytest.mark.parametrize("name", [b"host", b"upgrade", b"sec-websocket-key", b"sec-websocket-version"])
def test_headers_that_must_be_single_are(name: bytes) -> None:
    with pytest.raises(UpgradeRefused):
        parse([*HEADERS, (name, dict(HEADERS)[name])])


@pytest.mark.parametrize("extra", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])
def test_a_body_is_refused(extra: tuple[bytes, bytes]) -> None:
    with pytest.raises(UpgradeRefused):
        parse([*HEADERS, extra])


def test_method_and_version_of_http() -> None:
    with pytest.raises(UpgradeRefused):
        parse(method="POST")
    with pytest.raises(UpgradeRefused):
        parse(version="1.0")


def test_a_query_with_hundreds_of_fields_is_refused() -> None:
    with pytest.raises(UpgradeRefused):
        parse(url=b"/app/k?" + b"&".join(b"a=%d" % index for index in range(100)))
