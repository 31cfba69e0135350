"""Lines of the control socket: whatever arrives is a message or a coded refusal, and faults survive the way."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.admin import wire
from magmobo.admin.client import MAX_ANSWER_BYTES, _result_of
from magmobo.admin.errors import AnswerTooLarge, ControlConnectionLost, NodeRefused, RequestMalformed
from magmobo.contracts.capabilities import Role
from magmobo.contracts.errors import DeadlineExceeded, Unavailable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
LINES = st.binary() | JSON.map(lambda value: json.dumps(value).encode())


@given(LINES)
@example(b"[" * 60_000)
@example(b'{"command": "x", "params": ' + b"[" * 60_000)
@example(b'{"command": null}')
@example(b'{"command": "status"')
@example(b'\xff{"command": "x"}')
@example(b'{"command": "x", "timeout_s": 1e999}')
def test_any_line_is_a_request_or_malformed(line: bytes) -> None:
    with suppress(RequestMalformed):
        assert isinstance(wire.decode_request(line).command, str)


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": 3601},
        {"timeout_s": "5"},
        {"dry_run": 1},
        {"role": "root"},
        {"role": "ADMIN"},
        {"idempotency_key": "x" * 201},
        {"justification": "x" * 1001},
        {"justification": None},
        {"command": "x" * 201},
    ],
)
def test_a_field_out_of_its_bounds_is_malformed(fields: dict[str, object]) -> None:
    with pytest.raises(RequestMalformed):
        wire.decode_request(json.dumps({"command": "x", **fields}).encode())


def test_what_is_not_said_has_a_default() -> None:
    request = wire.decode_request(b'{"command": "x"}')
    assert (bytes(request.params), request.timeout_s, request.dry_run, request.role) == (b"{}", 30.0, False, None)
    full = b'{"command":"x","params":{"a":[1]},"timeout_s":2,"dry_run":true,"idempotency_key":"k","role":"viewer"}'
    request = wire.decode_request(full)
    assert (bytes(request.params), request.timeout_s, request.dry_run) == (b'{"a":[1]}', 2.0, True)
    assert (request.idempotency_key, request.role) == ("k", Role.VIEWER)


def test_a_newer_client_may_send_fields_we_do_not_know() -> None:
    assert wire.decode_request(b'{"command": "status", "watch": true}').command == "status"


@given(LINES)
@example(b"[" * 60_000)
@example(b'{"result": {}, "error": {"code": "", "text": "", "next_step": "", "exit_code": "one"}}')
@example(b'{"error": {"code": "", "text": "", "next_step": ""}}')
@example(b'{"result": 1}')
@example(b"{}")
def test_any_line_is_an_answer_or_none_that_we_understand(line: bytes) -> None:
    with suppress(ControlConnectionLost, NodeRefused):
        assert isinstance(_result_of(line), dict)


@given(st.dictionaries(st.text(), JSON))
def test_a_reply_survives_the_way(reply: dict[str, object]) -> None:
    for indent in (None, 1):  # a node may write its JSON over several lines
        line = wire.encode_result(json.dumps(reply, indent=indent).encode())
        assert line.count(b"\n") == 1
        assert _result_of(line) == reply


def test_an_answer_that_no_client_would_read_is_refused() -> None:
    wire.encode_result(b'"' + b"x" * (MAX_ANSWER_BYTES - 100) + b'"')
    with pytest.raises(AnswerTooLarge):
        wire.encode_result(b'"' + b"x" * MAX_ANSWER_BYTES + b'"')


def test_an_error_arrives_with_its_code_text_next_step_and_exit_code() -> None:
    with pytest.raises(NodeRefused) as caught:
        _result_of(wire.encode_fault(DeadlineExceeded("the backup", 3)))
    error = caught.value
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
