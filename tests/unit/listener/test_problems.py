"""Problem documents, errors and settings of the port."""

from __future__ import annotations

import inspect
import pickle

import msgspec
import pytest

from magmobo.components.listener import errors
from magmobo.components.listener.config import ListenerConfig
from magmobo.components.listener.problems import final_response, problem
from magmobo.contracts.errors import MagError


def test_a_problem_says_code_detail_and_next_step() -> None:
    status, headers, body = problem(errors.MountReleased(), "abc")
    document = msgspec.json.decode(body)
    assert status == 503
    assert document["code"] == "MAG-NET-011"
    assert document["correlation_id"] == "abc"
    assert document["hint"]
    assert dict(headers)[b"retry-after"] == b"1"
    assert dict(headers)[b"content-type"] == b"application/problem+json"


def test_a_final_response_is_valid_http() -> None:
    raw = final_response(errors.UpgradeRequired(), [(b"date", b"now")])
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 426 Upgrade Required\r\ndate: now\r\n")
    assert b"sec-websocket-version: 13" in head
    assert b"content-length: %d" % len(body) in head
    assert head.endswith(b"connection: close")


def test_every_error_has_a_code_of_its_own_and_survives_pickling() -> None:
    classes = [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, MagError) and item != MagError
    ]
    codes = [item.__dict__["code"] for item in classes]
    assert len(set(codes)) == len(codes)
    for item in (errors.PortTaken("127.0.0.1", 80, "in use"), errors.HeadTooLarge(9), errors.BadRequest("no")):
        again = pickle.loads(pickle.dumps(item))
        assert str(again) == str(item)


@pytest.mark.parametrize("hosts", [["a b"], ["http://x"], ["x/y"], [""], ["x:y"]])
def test_allowed_hosts_are_names(hosts: list[str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"allowed_hosts": hosts}, ListenerConfig)


def test_settings_accept_names_and_addresses() -> None:
    config = msgspec.convert({"allowed_hosts": ["api.example", "10.0.0.3", "::1", "[2001:db8::1]"]}, ListenerConfig)
    assert len(config.allowed_hosts) == 4
