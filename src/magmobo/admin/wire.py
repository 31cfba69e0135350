"""Requests and answers of the control socket: one JSON object a line, either way. The node's side of it.

Boundary: no I/O. A connection may carry any number of requests, answered in order. Unknown fields are ignored, so that
a `mag` and a node of different versions understand each other. `admin/client.py` speaks the same with the standard
library alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from magmobo.admin.client import MAX_ANSWER_BYTES
from magmobo.admin.errors import AnswerTooLarge, NodeRefused, RequestMalformed
from magmobo.contracts.capabilities import Role
from magmobo.contracts.errors import MagError

MAX_REQUEST_BYTES = 262_144  # the longest secret, every character of it escaped, and room for an import of many
MAX_TIMEOUT_S = 3600.0
Hide = Callable[[str], str]


class Request(Struct, frozen=True, omit_defaults=True):
    """What an operator asks for. `params` is JSON whose shape the command names.

    `role` lowers what the caller may do; `justification` asks for more than the role holds, and says why.
    """

    command: Annotated[str, Meta(max_length=200)]
    params: Raw = Raw(b"{}")
    timeout_s: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_S)] = 30.0
    dry_run: bool = False
    idempotency_key: Annotated[str, Meta(max_length=200)] = ""
    role: Role | None = None
    justification: Annotated[str, Meta(max_length=1000)] = ""


class Fault(Struct, frozen=True):
    """An error on its way to the operator: stable code, text, next step, and the exit code that `mag` should use."""

    code: str
    text: str
    next_step: str
    exit_code: int

    @classmethod
    def of(cls, error: MagError, hide: Hide | None = None) -> Fault:
        """The fault that tells about `error`; one that came from a node already stays as it was.

        hide: takes the secrets out of its words; by default what looks like one.
        """
        if isinstance(error, NodeRefused):
            return cls(error.fault_code, error.text, error.fault_next_step, error.fault_exit_code)
        from magmobo.kernel.redact import redact_text  # with the first fault

        hidden = hide or redact_text
        return cls(error.code, hidden(str(error)), hidden(error.what_next()), error.exit_code)

    def as_error(self) -> NodeRefused:
        """The error to raise on the operator's side."""
        return NodeRefused(self.code, self.text, self.next_step, self.exit_code)


class Answer(Struct, frozen=True, omit_defaults=True):
    """Exactly one of the two is set; `result` is empty when it is not."""

    result: Raw = Raw()  # msgspec does not decode `Raw | None`
    error: Fault | None = None


_requests = msgspec.json.Decoder(Request)
_encoder = msgspec.json.Encoder()


def decode_request(line: bytes) -> Request:
    """Raises: RequestMalformed, for anything that is not a request."""
    try:
        return _requests.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestMalformed(str(error)) from error


def encode_result(reply: bytes) -> bytes:
    """One line that carries the reply of a command, which is JSON. Raises: AnswerTooLarge."""
    # Between the tokens of JSON a line break is a blank like any other; inside of text it is always escaped.
    line = _encoder.encode(Answer(result=Raw(reply.replace(b"\n", b" "))))
    if len(line) >= MAX_ANSWER_BYTES:
        raise AnswerTooLarge(MAX_ANSWER_BYTES)
    return line + b"\n"


def encode_fault(error: MagError, hide: Hide | None = None) -> bytes:
    """One line that carries an error; `hide` as in `Fault.of`."""
    return _encoder.encode(Answer(error=Fault.of(error, hide))) + b"\n"
