import pytest

from magx import ApiError
from magx.testing import HandlerFailed

LATE = {"carrier": "UA", "flight": 1545, "origin": "EWR", "dest": "IAH", "dep_delay": 75}


def change(**record):
    return {"schema": "public", "table": "departures", "op": "insert", "record": {**LATE, **record}}


def test_a_late_flight_is_kept_and_told(magx_kernel):
    assert magx_kernel.emit("database.change", change()) == ["late-flights"]
    assert magx_kernel.statements[-1][1] == ["event-1", "UA", 1545, "EWR", "IAH", 75]
    text = "UA 1545 from EWR to IAH leaves 75 minutes late"
    assert magx_kernel.broadcasts == [(["delay-alerts"], "late", {"text": text, "minutes": 75})]
    assert magx_kernel.figures == [("alerts_total", 1.0)]


def test_an_event_that_comes_again_is_told_once(magx_kernel):
    magx_kernel.answer("db.fetchval", lambda args: any("insert" in sql for sql, _ in magx_kernel.statements) or None)
    for tries in (1, 2):
        magx_kernel.event("late-flights", change(), event_id="same", tries=tries)
    assert len(magx_kernel.broadcasts) == 1


def test_an_alert_that_could_not_be_told_is_not_kept_so_it_comes_again(magx_kernel):
    magx_kernel.answer("realtime.broadcast", ApiError("MAG-EXT-142", "asked too often", 1.0))
    with pytest.raises(HandlerFailed, match="asked too often"):
        magx_kernel.event("late-flights", change())
    assert not any("insert" in sql for sql, _ in magx_kernel.statements)


@pytest.mark.parametrize("record", [{"dep_delay": 3}, {"dep_delay": None}])
def test_the_filter_keeps_flights_in_time_away(magx_kernel, record):
    assert magx_kernel.emit("database.change", change(**record)) == []


@pytest.mark.magx_settings(minutes=120)
def test_the_setting_says_from_when_on(magx_kernel):
    magx_kernel.emit("database.change", change(dep_delay=119))
    assert magx_kernel.calls == []


def test_the_endpoint_shows_the_latest(magx_kernel):
    magx_kernel.answer("db.fetch", [{"carrier": "UA"}])
    answer = magx_kernel.request("GET", "/alerts", query="limit=5")
    assert (answer.status, answer.json()) == (200, [{"carrier": "UA"}])
    magx_kernel.request("GET", "/alerts", query="limit=9999")
    magx_kernel.request("GET", "/alerts", query="limit=many")
    assert [params for _, params in magx_kernel.statements] == [[5], [100], [20]]


def test_without_its_table_it_is_unhealthy(magx_kernel):
    assert magx_kernel.health() == {"status": "unhealthy", "detail": "alerts"}
