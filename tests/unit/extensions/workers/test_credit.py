"""What a worker may send of its own accord."""

from __future__ import annotations

from magmobo.extensions.workers.credit import BURST, LEAST_PER_S, Credit


def test_a_burst_is_free_and_what_follows_is_paced() -> None:
    credit = Credit(0.0)
    assert credit.spend(int(BURST), 0, 0.0) == 0
    assert credit.spend(50, 0, 0.0) == 50 / LEAST_PER_S


def test_credit_comes_back_by_itself_up_to_a_burst() -> None:
    credit = Credit(0.0)
    credit.spend(int(BURST), 0, 0.0)
    assert credit.spend(int(LEAST_PER_S), 0, 1.0) == 0
    assert credit.spend(1, 0, 1.0) > 0
    assert credit.spend(int(BURST), 0, 1000.0) == 0
    assert credit.spend(1, 0, 1000.0) > 0


def test_one_that_answers_may_log_and_count_in_every_hook() -> None:
    credit = Credit(0.0)
    assert not any(credit.spend(4, 1, 0.0) for _ in range(10_000))


def test_one_that_sends_more_than_it_answers_runs_out() -> None:
    credit = Credit(0.0)
    assert any(credit.spend(5, 1, 0.0) for _ in range(2_000))
