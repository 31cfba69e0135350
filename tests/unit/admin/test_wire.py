"""Lines of the control socket: whatever arrives is a message or a coded refusal, and faults survive the way."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.admin import wire
from magmobo.admin.errors import NodeRefused, RequestMalformed
from magmobo.contracts.errors import DeadlineExceeded, Unavailable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 60_000)
@example(b'{"command": null}')
@example(b'{"command": "status"')
@example(b'\xff{"command": "x"}')
def test_any_line_is_a_request_or_malformed(line: bytes) -> None:
    with suppress(RequestMalformed):
        assert isinstance(wire.decode_request(line).command, str)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 60_000)
@example(b'{"result": 1, "error": {"code": "", "text": "", "next_step": "", "exit_code": 1}}')
@example(b"{}")
def test_any_line_is_an_answer_or_malformed(line: bytes) -> None:
    with suppress(RequestMalformed):
        answer = wire.decode_answer(line)
        assert bool(answer.result) == (answer.error is None)


def test_a_result_survives_the_way() -> None:
    answer = wire.decode_answer(wire.encode_result(wire.Pong(7, "1.0")))
    assert answer.error is None
    assert msgspec.json.decode(answer.result, type=wire.Pong) == wire.Pong(7, "1.0")


@given(st.text())
def test_a_request_survives_the_way(command: str) -> None:
    line = wire.encode_request(wire.Request(command))
    assert line.count(b"\n") == 1
    assert wire.decode_request(line).command == command


def test_a_newer_client_may_send_fields_we_do_not_know() -> None:
    assert wire.decode_request(b'{"command": "status", "watch": true}').command == "status"


def test_an_error_arrives_with_its_code_text_next_step_and_exit_code() -> None:
    answer = wire.decode_answer(wire.encode_fault(DeadlineExceeded("the backup", 3)))
    assert answer.error is not None
    error = answer.error.as_error()
    assert (error.fault_code, error.text, error.fault_exit_code) == (
        "MAG-CORE-002",
        "the backup did not finish within 3 s",
        7,
    )
    assert error.fault_next_step == DeadlineExceeded.remedy


def test_an_error_passed_on_keeps_its_own_code() -> None:
    first = wire.Fault.of(Unavailable("magds"))
    assert wire.Fault.of(first.as_error()) == first
    with pytest.raises(NodeRefused, match="MAG-CORE-001"):
        raise first.as_error()
