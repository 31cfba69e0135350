import pytest

from magx.testing import HandlerFailed

SLOW = {"sql_hash": "9f86d081884c7d65", "sql": "select * from flights", "duration_s": 7.5, "rows": 3, "role": "web"}


def test_a_statement_is_kept_and_operators_hear_of_it(magx_kernel):
    assert magx_kernel.emit("database.slow_query.detected", SLOW) == ["slow-queries"]
    assert magx_kernel.statements[0][1] == [SLOW["sql_hash"], SLOW["sql"], 7.5, "event-1"]
    told = {"sql": SLOW["sql"], "duration_s": 7.5}
    assert magx_kernel.broadcasts == [(["private-ops"], "slow-query", told)]


def test_without_the_optional_capability_it_only_keeps(magx_kernel):
    magx_kernel.revoke("realtime.broadcast")
    magx_kernel.emit("database.slow_query.detected", SLOW)
    assert len(magx_kernel.statements) == 1
    assert magx_kernel.broadcasts == []


@pytest.mark.magx_settings(tell_s=10)
def test_less_slow_ones_are_not_told(magx_kernel):
    magx_kernel.emit("database.slow_query.detected", SLOW)
    assert magx_kernel.broadcasts == []


def test_what_could_not_be_kept_is_delivered_again(magx_kernel):
    magx_kernel.answer("db.execute", RuntimeError("the table is gone"))
    with pytest.raises(HandlerFailed, match="the table is gone"):
        magx_kernel.emit("database.slow_query.detected", SLOW)


def test_the_command_lists_the_worst(magx_kernel):
    magx_kernel.answer("db.fetch", [{"sql": "select 1", "times": 2}])
    assert magx_kernel.command("top", limit=5)[0]["times"] == 2
    assert magx_kernel.statements[0][1] == [5]


@pytest.mark.magx_settings(keep_days=7)
def test_the_job_forgets_what_is_old(magx_kernel):
    magx_kernel.answer("db.execute", 4)
    magx_kernel.job("forget")
    assert magx_kernel.statements[0][1] == [7]
    assert magx_kernel.lines == [("info", "forgot statements", {"count": 4})]
