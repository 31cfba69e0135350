"""Packages arrive part by part, whole or not at all, within bounds."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.contracts.extensions import STAGE_CHUNK_BYTES, StagePackage
from magmobo.extensions.errors import NotStaged, StageRefused
from magmobo.extensions.staging import KEPT_S, MAX_PACKAGES, Staging


class Now:
    s = 0.0

    def __call__(self) -> float:
        return self.s


def part(data: bytes, offset: int, end: int) -> StagePackage:
    return StagePackage(
        sha256=sha256(data).hexdigest(),
        size_bytes=len(data),
        offset=offset,
        data=b64encode(data[offset:end]).decode(),
    )


@given(st.binary(min_size=1, max_size=400), st.lists(st.integers(1, 100), max_size=20))
def test_parts_in_order_give_the_package_back(data: bytes, steps: list[int]) -> None:
    staging, at = Staging(Now()), 0
    for step in [*steps, len(data)]:
        if at >= len(data):
            break
        answer = staging.take(part(data, at, at + step))
        at = min(at + step, len(data))
        assert (answer.received_bytes, answer.complete) == (at, at == len(data))
    assert staging.package(sha256(data).hexdigest()) == data


def test_a_part_that_is_there_is_taken_as_said() -> None:
    staging, data = Staging(Now()), b"0123456789"
    staging.take(part(data, 0, 6))
    assert staging.take(part(data, 0, 6)).received_bytes == 6
    assert staging.take(part(data, 6, 10)).complete


def test_a_hole_and_too_much_are_refused() -> None:
    staging, data = Staging(Now()), b"0123456789"
    staging.take(part(data, 0, 3))
    with pytest.raises(StageRefused, match="at 5 of 10"):
        staging.take(part(data, 5, 8))
    with pytest.raises(StageRefused, match="at 3 of 10"):
        staging.take(
            StagePackage(sha256=sha256(data).hexdigest(), size_bytes=10, offset=3, data=b64encode(b"x" * 9).decode())
        )
    assert staging.take(part(data, 3, 10)).complete


def test_a_wrong_digest_is_found_when_it_is_whole() -> None:
    staging = Staging(Now())
    wrong = StagePackage(sha256="0" * 64, size_bytes=4, offset=0, data=b64encode(b"abcd").decode())
    with pytest.raises(StageRefused, match="digest"):
        staging.take(wrong)
    with pytest.raises(NotStaged):
        staging.package("0" * 64)


def test_an_incomplete_package_is_not_there() -> None:
    staging, data = Staging(Now()), b"0123456789"
    staging.take(part(data, 0, 9))
    with pytest.raises(NotStaged):
        staging.package(sha256(data).hexdigest())


def test_what_waits_is_bounded_and_forgotten() -> None:
    now = Now()
    staging = Staging(now)
    for number in range(MAX_PACKAGES):
        staging.take(part(b"package %d" % number, 0, 3))
    with pytest.raises(StageRefused, match="others are being brought"):
        staging.take(part(b"one more", 0, 3))
    now.s += KEPT_S + 1
    assert staging.take(part(b"one more", 0, 3)).received_bytes == 3


def test_whole_ones_make_room_oldest_first_and_those_on_their_way_stay() -> None:
    now = Now()
    staging = Staging(now)
    under_way = b"under way"
    staging.take(part(under_way, 0, 3))
    brought = [b"package %d" % number for number in range(MAX_PACKAGES + 2)]
    for data in brought:
        now.s += 1
        staging.take(part(data, 0, len(data)))
    assert staging.take(part(under_way, 3, len(under_way))).complete
    kept = brought[-(MAX_PACKAGES - 1) :]
    for data in kept:
        assert staging.package(sha256(data).hexdigest()) == data
    for data in brought[: -len(kept)]:
        with pytest.raises(NotStaged):
            staging.package(sha256(data).hexdigest())


def test_a_part_is_bounded_and_base64() -> None:
    staging, data = Staging(Now()), bytes(STAGE_CHUNK_BYTES + 1)
    with pytest.raises(StageRefused, match="limit"):
        staging.take(part(data, 0, len(data)))
    with pytest.raises(StageRefused, match="base64"):
        staging.take(StagePackage(sha256="0" * 64, size_bytes=4, offset=0, data="@@@@"))


def test_dropped_is_gone() -> None:
    staging, data = Staging(Now()), b"abc"
    staging.take(part(data, 0, 3))
    staging.drop(sha256(data).hexdigest())
    with pytest.raises(NotStaged):
        staging.package(sha256(data).hexdigest())
