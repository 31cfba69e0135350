"""Messages between node and zygote survive the trip, and nothing else is taken for one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.sandbox import control
from magmobo.extensions.sandbox.control import (
    Ended,
    Finding,
    Forked,
    Hello,
    Listening,
    NotForked,
    Ready,
    Refused,
    Spawn,
)

ANSWERS = [
    Hello(0, [Finding("seccomp", True, "works")], 12_345),
    NotForked(1, "pids", "why"),
    Forked(1, 4711),
    Listening(1),
    Ready(1),
    Refused(1, "root", "why"),
    Ended(1, None, 9, ran_out_of_memory=True),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_answers_arrive_as_they_were(answer: control.Answer) -> None:
    assert control.decode_answer(control.encode(answer)) == answer


def test_a_question_fits_one_datagram_with_the_longest_paths() -> None:
    question = Spawn(2**31, "/" + "c" * 4000, "/" + "d" * 4000, 2**40, 2**40, 2**40, 2**31, ["layer"] * 20)

    datagram = control.encode(question)

    assert len(datagram) < control.MAX_BYTES
    assert control.decode_question(datagram) == question


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    try:
        answer = control.decode_answer(data)
    except msgspec.MsgspecError:
        return
    assert control.decode_answer(control.encode(answer)) == answer
