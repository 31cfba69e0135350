"""When a worker that ended is started again."""

from __future__ import annotations

from magmobo.extensions.workers.backoff import DELAYS_S, FORGIVEN_S, Backoff


def test_the_first_end_costs_nothing_and_the_next_ever_more() -> None:
    backoff = Backoff()
    assert [backoff.next_s(0.0) for _ in DELAYS_S] == list(DELAYS_S)
    assert backoff.next_s(0.0) == DELAYS_S[-1]


def test_a_long_life_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.next_s(0.0)
    assert backoff.next_s(FORGIVEN_S) == 0.0
    assert backoff.next_s(FORGIVEN_S - 0.1) > 0.0
