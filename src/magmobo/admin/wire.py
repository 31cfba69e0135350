"""Requests and answers of the control socket: one JSON object a line, either way.

Boundary: no I/O. A connection may carry any number of requests, answered in order. Unknown fields are ignored in both
directions, so that a `mag` and a node of different versions understand each other.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from magmobo.admin.errors import NodeRefused, RequestMalformed
from magmobo.contracts.errors import MagError

MAX_REQUEST_BYTES = 65_536
MAX_ANSWER_BYTES = 8_388_608


class Request(Struct, frozen=True):
    """What an operator asks for."""

    command: str


class Fault(Struct, frozen=True):
    """An error on its way to the operator: stable code, text, next step, and the exit code that `mag` should use."""

    code: str
    text: str
    next_step: str
    exit_code: int

    @classmethod
    def of(cls, error: MagError) -> Fault:
        """The fault that tells about `error`; one that came from a node already stays as it was."""
        if isinstance(error, NodeRefused):
            return cls(error.fault_code, error.text, error.fault_next_step, error.fault_exit_code)
        return cls(error.code, str(error), error.next_step(), error.exit_code)

    def as_error(self) -> NodeRefused:
        """The error to raise on the operator's side."""
        return NodeRefused(self.code, self.text, self.next_step, self.exit_code)


class Answer(Struct, frozen=True, omit_defaults=True):
    """Exactly one of the two is set; `result` is JSON whose shape the command names, empty when it is not set."""

    result: msgspec.Raw = msgspec.Raw()  # msgspec does not decode `Raw | None`
    error: Fault | None = None


class Stopping(Struct, frozen=True):
    """Answer to `stop`: the node has begun to drain and closes the connection when it is gone."""

    pid: int


class Pong(Struct, frozen=True):
    """Answer to `ping`."""

    pid: int
    version: str


_requests = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)
_encoder = msgspec.json.Encoder()


def decode_request(line: bytes) -> Request:
    """Raises: RequestMalformed, for anything that is not a request."""
    try:
        return _requests.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestMalformed(str(error)) from error


def decode_answer(line: bytes) -> Answer:
    """Raises: RequestMalformed, for anything that is not an answer."""
    try:
        answer = _answers.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestMalformed(str(error)) from error
    if bool(answer.result) == (answer.error is not None):
        raise RequestMalformed("an answer holds a result or an error")
    return answer


def encode_request(request: Request) -> bytes:
    """One line."""
    return _encoder.encode(request) + b"\n"


def encode_result(result: Any) -> bytes:
    """One line that carries the result of a command: a Struct, or whatever JSON can say."""
    return _encoder.encode(Answer(result=msgspec.Raw(_encoder.encode(result)))) + b"\n"


def encode_fault(error: MagError) -> bytes:
    """One line that carries an error."""
    return _encoder.encode(Answer(error=Fault.of(error))) + b"\n"
