"""What extensions say of their health is hostile; what is noted of it decides whether they go on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, msgpack
from tests.unit.extensions.package.making import calm

from magmobo.contracts.health import HealthStatus
from magmobo.extensions.lifecycle.health import (
    CRASH_WINDOW_S,
    CRASHES,
    DETAIL_CHARS,
    HealthBook,
    Said,
    read_answer,
)

WELL, BAD = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY


def answer(value: Any) -> Said:
    return read_answer(Raw(msgpack.encode(value)))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"status": "healthy"}, Said(WELL)),
        ({"status": "degraded", "detail": "slow\nnow"}, Said(HealthStatus.DEGRADED, "slow now")),
        ({"status": "unhealthy", "detail": "x" * 999}, Said(BAD, "x" * DETAIL_CHARS)),
        ({"db": True, "queue": True}, Said(WELL)),
        ({"db": True, "queue": False, "a": False}, Said(BAD, "a, queue")),
        ({}, Said(WELL)),
    ],
)
def test_the_agreed_forms(value: Any, said: Said) -> None:
    assert answer(value) == said


OTHERS = [None, 7, [], "healthy", {"status": "dancing"}, {"status": 1}, {"db": "yes"}, {1: True}, {"a": {"b": True}}]


@pytest.mark.parametrize("value", [*OTHERS, {"status": "healthy", "detail": 5}])
def test_other_forms_are_not_well(value: Any) -> None:
    assert answer(value).status is BAD


@calm
@given(st.binary(max_size=200))
def test_bytes_that_are_no_answer_are_not_well_or_read(content: bytes) -> None:
    said = read_answer(Raw(content))
    assert len(said.detail) <= DETAIL_CHARS
    assert said.detail.isprintable()


def test_strikes_are_counted_in_a_row() -> None:
    book = HealthBook()
    assert book.note(Said(WELL)) is None
    before = book.note(Said(BAD, "one"))
    assert before == Said(WELL)
    assert book.note(Said(BAD, "two")) is None
    assert book.strikes == 2
    assert book.note(Said(HealthStatus.DEGRADED)) == Said(BAD, "two")
    assert book.strikes == 0


def test_crashes_are_counted_within_the_window() -> None:
    book = HealthBook()
    for number in range(CRASHES - 1):
        assert book.note_crash(float(number)) == number + 1
    assert book.note_crash(CRASH_WINDOW_S + 1.5) == CRASHES - 2
    for number in range(20):
        count = book.note_crash(CRASH_WINDOW_S + 2 + number)
    assert count == CRASHES
