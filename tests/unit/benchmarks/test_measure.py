"""The arithmetic of the benchmarks: what a ratio means, what a percentile is, where a frame ends."""

from __future__ import annotations

import itertools

import pytest
from benchmarks.measure import figure, interleaved, percentile
from benchmarks.sockets import Frames
from hypothesis import given
from hypothesis import strategies as st

from magmobo.contracts.websocket import text_frame


def test_a_ratio_above_one_is_better_whatever_the_unit() -> None:
    fast = figure("requests", "1/s", "higher", [30, 20, 40], yardstick="other", yardstick_values=[10, 10, 10])
    slow = figure("latency", "ms", "lower", [30, 20, 40], yardstick="other", yardstick_values=[10, 10, 10])
    assert (fast.value, fast.ratio, fast.low, fast.high) == (30, 3, 20, 40)
    assert slow.ratio == pytest.approx(1 / 3)


def test_contenders_take_turns_in_being_first() -> None:
    order: list[str] = []
    interleaved(2, {name: lambda name=name: order.append(name) or {} for name in "ab"})
    assert order == ["a", "b", "b", "a"]


def test_percentiles() -> None:
    assert percentile(range(1, 101), 50) == 51
    assert percentile([3, 1, 2], 99) == 3
    with pytest.raises(IndexError):
        percentile([], 50)


@given(st.lists(st.binary(max_size=70_000), max_size=5), st.lists(st.integers(0, 200_000), max_size=6))
def test_frames_are_the_same_however_the_bytes_arrive(payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(text_frame(payload) for payload in payloads)
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    frames = Frames()
    pieces = [data[start:end] for start, end in itertools.pairwise(ends) if end > start]
    assert [payload for piece in pieces for payload in frames.feed(piece)] == payloads


def test_a_server_that_leaves_or_speaks_otherwise_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="closed"):
        Frames().feed(b"")
    with pytest.raises(RuntimeError, match="not a text frame"):
        Frames().feed(b"\x88\x02\x03\xe8")
