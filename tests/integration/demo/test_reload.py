"""The replay takes another speed while it plays."""

from __future__ import annotations

from pathlib import Path

from tests.integration.demo.support import make_demo, query, until

from magmobo.components.demo.component import Demo
from magmobo.components.demo.config import DemoConfig

ORDER = """
    select count(*) from (
      select (f.time_hour, f.minute, f.id) < lag((f.time_hour, f.minute, f.id)) over (order by d.id) as back,
             count(*) over (partition by d.flight_id) as times
      from departures d join flights f on f.id = d.flight_id) as played
    where back or times > 1"""


async def take(demo: Demo, **changed: float) -> None:
    """What a reload does with this component."""
    await demo.prepare_reload(DemoConfig(name="flights", **changed), set(changed))
    demo.commit_reload()


async def test_another_speed_counts_from_now_on_and_nothing_is_played_twice(flights_dsn: str, tmp_path: Path) -> None:
    demo = make_demo(flights_dsn, tmp_path, name="flights", speed=0.001)
    await demo.start()
    try:
        replay = demo._replay
        assert replay is not None
        await until(lambda: replay.inserted >= 1)
        slow = replay.inserted
        await take(demo, speed=1_000_000)
        assert demo._replay is replay
        await until(lambda: replay.inserted > slow + 1_000)
        await take(demo, speed=0)
        assert (await demo.health()).checks == ()
        await until(lambda: not [task for task in demo._context.tasks if not task.done()])  # type: ignore[attr-defined]
        [(stopped_at,)] = query(flights_dsn, "select count(*) from departures")
        await demo.abort_reload()
        demo.commit_reload()  # a stray call takes nothing
        assert demo._replay is None
        await take(demo, speed=1_000_000)
        await until(lambda: query(flights_dsn, "select count(*) from departures")[0][0] > stopped_at + 500)
    finally:
        await demo.stop()
    assert query(flights_dsn, ORDER) == [(0,)]


async def test_a_demo_without_a_replay_has_nothing_to_hurry(dsn: str, tmp_path: Path) -> None:
    demo = make_demo(dsn, tmp_path, name="tasks")
    await demo.boot()
    await demo.start()
    await demo.prepare_reload(DemoConfig(name="tasks", speed=5), {"speed"})
    demo.commit_reload()
    assert demo._replay is None
    await demo.stop()
