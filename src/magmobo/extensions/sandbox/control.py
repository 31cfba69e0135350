"""What the node and its zygote say to each other: one datagram each on a socket of their own.

The node asks with `Spawn`, which brings the worker's end of a socket pair. The answers are `NotForked`, or `Forked`,
which brings a pidfd; then `Listening`, `Ready` or `Refused` by the child itself, and `Ended`. No worker has its socket.
Boundary: shapes only.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

MAX_BYTES = 65_536


class Message(Struct, frozen=True, array_like=True, tag=True):
    """Base of every message; `number` is of the spawn that it belongs to."""

    number: int


class Finding(Struct, frozen=True, array_like=True):
    """What was found of one part of the sandbox: whether it works here, how, and why not."""

    name: str
    ok: bool
    detail: str


class Hello(Message, frozen=True):
    """First of all, with number 0: what works on this machine, and the uid of the zygote."""

    findings: Sequence[Finding]
    uid: int


class Spawn(Message, frozen=True):
    """A worker is wanted: `layers` by name; see `spawner.WorkerSpec` for the others."""

    code_dir: str
    data_dir: str | None
    memory_bytes: int
    data_bytes: int
    temp_bytes: int
    uid: int | None
    layers: Sequence[str]


class NotForked(Message, frozen=True):
    """There is no process, because this layer could not be prepared."""

    layer: str
    reason: str


class Forked(Message, frozen=True):
    """There is a process; its pidfd comes along."""

    pid: int


class Listening(Message, frozen=True):
    """Before `Ready`, where the kernel tells of forbidden system calls: the descriptor to hear of them comes along."""


class Ready(Message, frozen=True):
    """Every layer is around it; next it runs the runtime."""


class Refused(Message, frozen=True):
    """It ends without having run anything: this layer could not be applied."""

    layer: str
    reason: str


class Ended(Message, frozen=True):
    """It ended: by itself with `code`, or by `signal`."""

    code: int | None
    signal: int | None
    ran_out_of_memory: bool


Answer = Hello | NotForked | Forked | Listening | Ready | Refused | Ended
_encoder = msgspec.msgpack.Encoder()
_answers = msgspec.msgpack.Decoder(Answer)
_questions = msgspec.msgpack.Decoder(Spawn)


def encode(message: Message) -> bytes:
    """A message as one datagram."""
    return _encoder.encode(message)


def decode_answer(datagram: bytes) -> Answer:
    """What the zygote or a child of it said. Raises: msgspec.MsgspecError."""
    answer: Answer = _answers.decode(datagram)
    return answer


def decode_question(datagram: bytes) -> Spawn:
    """What the node said. Raises: msgspec.MsgspecError."""
    return _questions.decode(datagram)
