"""The guard against DNS rebinding."""

from __future__ import annotations

import pytest

from magmobo.components.listener.errors import BadRequest, HostNotAllowed
from magmobo.components.listener.hosts import HostGuard


def check(guard: HostGuard, *hosts: bytes, version: str = "1.1") -> None:
    guard.check([(b"accept", b"*/*"), *((b"host", host) for host in hosts)], version)


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:8787", b"127.0.0.1", b"127.0.0.1:1", b"[::1]", b"[::1]:8787", b"my.test:80"]
)
def test_loopback_answers_to_its_names_and_the_listed_ones(host: bytes) -> None:
    check(HostGuard("127.0.0.1", ["My.test"]), host)


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"127.0.0.1.evil.example",
        b"localhost.evil.example:80",
        b"localhost:80:80",
        b"localhost:evil",
        b"[::1]evil",
        b"[::1",
        b"",
        b":80",
        b"\xff",
        b"127.0.0.2",
    ],
)
def test_loopback_answers_to_nothing_else(host: bytes) -> None:
    with pytest.raises(HostNotAllowed):
        check(HostGuard("127.0.0.1", []), host)


def test_the_bound_address_is_a_name_of_ours() -> None:
    check(HostGuard("127.0.0.2", []), b"127.0.0.2:80")
    check(HostGuard("::1", []), b"[::1]:80")


def test_elsewhere_any_host_is_answered_until_one_is_listed() -> None:
    check(HostGuard("0.0.0.0", []), b"anything.example")
    guard = HostGuard("0.0.0.0", ["api.example", "2001:db8::1"])
    check(guard, b"api.example:443")
    check(guard, b"[2001:db8::1]:443")
    with pytest.raises(HostNotAllowed):
        check(guard, b"anything.example")


def test_exactly_one_host_header() -> None:
    guard = HostGuard("127.0.0.1", [])
    check(guard, version="1.0")
    with pytest.raises(BadRequest):
        check(guard)
    with pytest.raises(BadRequest):
        check(guard, b"localhost", b"localhost")
