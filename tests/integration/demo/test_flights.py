"""The flights demo against a real Postgres and the real data set."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psycopg
import pytest
from tests.integration.demo.support import PlainDatabase, make_demo, query, until

from magmobo.components.demo import dataset, flights
from magmobo.components.demo.dataset import CsvFile
from magmobo.components.demo.errors import DatasetUnexpected, DemoIncomplete, DemoNotAllowed, NameTaken
from magmobo.components.demo.load import DemoSchema, copy_csv, load_once
from magmobo.testing.postgres import PostgresServer


class Silent:
    def advance(self, label: str, size_bytes: int) -> None:
        pass


async def test_all_rows_arrive_with_their_types_and_their_dirt(
    dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await make_demo(dsn, tmp_path).boot()
    counts = {table: query(dsn, f"select count(*) from {table}")[0][0] for table in flights.COLUMNS}
    assert counts == flights.ROWS
    assert sum(counts.values()) == 367_687
    assert query(dsn, "select count(*) from flights where dest not in (select faa from airports)") == [(7_602,)]
    assert query(dsn, "select count(*) from flights f where not exists"
                 " (select from planes p where p.tailnum = f.tailnum)") == [(52_606,)]  # fmt: skip
    assert query(dsn, "select count(*) from flights where dep_time is null") == [(8_255,)]
    latest = (
        "select carrier, flight, dep_delay from flights where dest = 'SEA' order by dep_delay desc nulls last limit 3"
    )
    assert query(dsn, latest) == [("DL", 1543, 504), ("DL", 1643, 471), ("B6", 263, 340)]
    assert query(dsn, "select min(id), max(id) from flights") == [(1, 336_776)]
    columns = dict(query(dsn, "select column_name, data_type from information_schema.columns"
                         " where table_name = 'flights' order by ordinal_position"))  # fmt: skip
    assert next(iter(columns)) == "id"
    assert columns["time_hour"] == "timestamp with time zone"
    assert "took" in capsys.readouterr().err


async def test_the_anonymous_role_reads_and_adds_flights_and_nothing_more(flights_dsn: str, tmp_path: Path) -> None:
    assert query(flights_dsn, "select name from mag.roles") == [("mag_demo_anon",)]
    with psycopg.connect(flights_dsn, autocommit=True) as connection:
        connection.execute("set role mag_demo_anon")
        connection.execute("select from airlines, airports, planes, weather, flights, departures limit 1")
        connection.execute(
            "insert into flights (year, month, day, sched_dep_time, sched_arr_time, carrier, flight, origin, dest,"
            " distance, hour, minute, time_hour) values (2013, 1, 1, 1, 1, 'UA', 1, 'JFK', 'SEA', 1, 1, 1, now())"
        )
        for refused in (
            "update flights set dest = 'X'",
            "delete from flights",
            "insert into airlines values ('X', 'X')",
            "truncate departures",
            "create table public.mine ()",
            "select from mag.roles",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused)


async def test_a_second_start_loads_nothing_and_needs_no_package(
    flights_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    query(flights_dsn, "delete from flights where id = 7")
    capsys.readouterr()
    monkeypatch.setattr(dataset, "PACKAGE", "no_such_package_here")
    await make_demo(flights_dsn, tmp_path).boot()
    assert capsys.readouterr().err == ""
    assert query(flights_dsn, "select count(*) from flights") == [(336_775,)]


async def test_two_nodes_starting_together_load_once(dsn: str, tmp_path: Path) -> None:
    await asyncio.gather(*(make_demo(dsn, tmp_path, name="tasks").boot() for _ in range(4)))
    assert query(dsn, "select count(*) from tasks") == [(335,)]


async def test_a_table_of_the_user_is_never_touched(dsn: str, tmp_path: Path) -> None:
    query(dsn, "create table planes (mine text); insert into planes values ('kept')")
    with pytest.raises(NameTaken, match=r"public\.planes"):
        await make_demo(dsn, tmp_path).boot()
    assert query(dsn, "select * from planes") == [("kept",)]
    assert query(dsn, "select to_regclass('public.flights'), to_regnamespace('mag')") == [(None, None)]


async def test_a_role_of_the_user_is_never_used(postgres: PostgresServer, dsn: str) -> None:
    role = f"mag_demo_theirs_{os.getpid()}"
    query(dsn, f"create role {role} login")
    try:
        schema = DemoSchema("theirs", 1, ("theirs",), (role,))

        async def fill(connection: object, progress: object) -> None:
            raise AssertionError("reached the rows")

        async with PlainDatabase(dsn).session() as connection:
            with pytest.raises(NameTaken, match=role):
                await load_once(connection, schema, fill, Silent())
    finally:
        query(dsn, f"drop role {role}")


async def test_a_demo_that_lost_a_table_says_so(dsn: str, tmp_path: Path) -> None:
    await make_demo(dsn, tmp_path, name="tasks").boot()
    query(dsn, "drop table comments")
    with pytest.raises(DemoIncomplete) as caught:
        await make_demo(dsn, tmp_path, name="tasks").boot()
    assert "drop table public.members, public.tasks, public.teams cascade" in caught.value.next_step()


async def test_a_role_that_may_not_create_is_told_so(postgres: PostgresServer, dsn: str, tmp_path: Path) -> None:
    role = f"weak_{os.getpid()}"
    query(dsn, f"create role {role} login")
    try:
        weak = psycopg.conninfo.make_conninfo(dsn, user=role)
        with pytest.raises(DemoNotAllowed, match="permission denied"):
            await make_demo(weak, tmp_path, name="tasks").boot()
        assert query(dsn, "select to_regclass('public.tasks')") == [(None,)]
    finally:
        query(dsn, f"drop role {role}")


async def test_a_plain_owner_of_the_database_can_run_a_demo(postgres: PostgresServer, dsn: str, tmp_path: Path) -> None:
    role = f"owner_{os.getpid()}"
    own = psycopg.conninfo.make_conninfo(dsn, user=role)
    schema = DemoSchema("own", 1, ("t",), (f"mag_demo_own_{os.getpid()}",))
    query(dsn, f"create role {role} login createrole")
    try:
        query(dsn, f"grant create on database {psycopg.conninfo.conninfo_to_dict(dsn)['dbname']} to {role}")
        query(dsn, f"grant create on schema public to {role}")

        async def fill(connection: psycopg.AsyncConnection[object], progress: object) -> None:
            await connection.execute("create table public.t ()")

        async with PlainDatabase(own).session() as connection:
            assert await load_once(connection, schema, fill, Silent())  # type: ignore[arg-type]
            await connection.execute(f"set role {schema.roles[0]}")
    finally:
        query(dsn, f"set role {role}; drop role if exists {schema.roles[0]}")
        query(dsn, f"drop owned by {role} cascade; drop role {role}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a,c\n1,2\n", "column name mismatch"),
        (b"a,b\n1,x\n", "invalid input syntax"),
        (b"a,b\n1\n", "missing data"),
        (b"a,b\nNA,1\n", "null value"),
    ],
)
async def test_a_file_that_does_not_fit_is_refused_whole(
    dsn: str, tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)

    async def fill(connection: psycopg.AsyncConnection[object], progress: Silent) -> None:
        await connection.execute("create table public.t (a integer not null, b integer)")
        await copy_csv(connection, "t", ("a", "b"), CsvFile(tmp_path / "t.csv"), progress)  # type: ignore[arg-type]

    async with PlainDatabase(dsn).session() as connection:
        with pytest.raises(DatasetUnexpected, match=problem):
            await load_once(connection, DemoSchema("t", 1, ("t",), ()), fill, Silent())  # type: ignore[arg-type]
    assert query(dsn, "select to_regclass('public.t'), to_regnamespace('mag')") == [(None, None)]


async def test_a_damaged_archive_loads_nothing(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.csv", "a\n" + "1\n" * 1000)
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 0xFF
    path.write_bytes(damaged)

    async def fill(connection: psycopg.AsyncConnection[object], progress: Silent) -> None:
        await connection.execute("create table public.t (a integer)")
        await copy_csv(connection, "t", ("a",), CsvFile(path), progress)  # type: ignore[arg-type]

    async with PlainDatabase(dsn).session() as connection:
        with pytest.raises(DatasetUnexpected):
            await load_once(connection, DemoSchema("t", 1, ("t",), ()), fill, Silent())  # type: ignore[arg-type]
    assert query(dsn, "select to_regclass('public.t')") == [(None,)]


def departed(dsn: str) -> int:
    return int(query(dsn, "select count(*) from departures")[0][0])


LOADER = """
import asyncio, sys
from pathlib import Path
from tests.integration.demo.support import make_demo
asyncio.run(make_demo(sys.argv[1], Path(sys.argv[2])).boot())
"""


def test_a_load_that_is_killed_leaves_nothing_and_the_next_start_loads(dsn: str, tmp_path: Path) -> None:
    loader = subprocess.Popen(
        [sys.executable, "-c", LOADER, dsn, str(tmp_path)], cwd=Path(__file__).parents[3], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while not query(dsn, "select pid from pg_stat_progress_copy where tuples_processed > 50000"):
            assert time.monotonic() < deadline
            assert loader.poll() is None
    finally:
        loader.send_signal(signal.SIGKILL)
        loader.wait()
    asyncio.run(make_demo(dsn, tmp_path).boot())
    assert query(dsn, "select count(*) from flights") == [(336_776,)]


async def test_departures_are_inserted_in_order_and_go_on_after_a_restart(flights_dsn: str, tmp_path: Path) -> None:
    played = "select array_agg(flight_id order by id) from departures"
    for wanted in (700, 1_400, 2_100):
        demo = make_demo(flights_dsn, tmp_path, speed=500_000)
        await demo.start()
        await until(lambda at_least=wanted: departed(flights_dsn) >= at_least)
        assert (await demo.health()).status == "healthy"
        await demo.stop()
    timetable = query(
        flights_dsn,
        "select array_agg(id) from (select id from flights where dep_time is not null"
        " order by time_hour, minute, id limit %s) as t",
        departed(flights_dsn),
    )
    assert query(flights_dsn, played) == timetable
    late = "select count(*) from departures where dep_at <> sched_at + dep_delay * interval '1 minute'"
    assert query(flights_dsn, late) == [(0,)]


async def test_the_year_begins_again_after_its_last_departure(flights_dsn: str, tmp_path: Path) -> None:
    query(flights_dsn, "insert into departures (flight_id, sched_at, dep_at, dep_delay, carrier, flight, origin, dest)"
          " select id, time_hour, time_hour, dep_delay, carrier, flight, origin, dest from flights"
          " where dep_time is not null order by time_hour desc, minute desc, id desc limit 1")  # fmt: skip
    demo = make_demo(flights_dsn, tmp_path, speed=10_000)
    await demo.start()
    first = "select flight_id from departures order by id limit 1"
    await until(lambda: query(flights_dsn, first) == [(1,)])
    await demo.stop()


async def test_a_flight_that_somebody_added_cannot_stop_the_replay(flights_dsn: str, tmp_path: Path) -> None:
    query(
        flights_dsn,
        "insert into flights (year, month, day, dep_time, dep_delay, sched_dep_time, sched_arr_time, carrier, flight,"
        " origin, dest, distance, hour, minute, time_hour) values"
        " (0, 0, 0, 1, 2147483647, 1, 1, 'UA', 1, 'JFK', '', 1, 1, -2147483648, 'infinity'),"
        " (0, 0, 0, 1, 1, 1, 1, 'UA', 1, 'JFK', '', 1, 1, 2147483647, '1971-01-01')",
    )
    demo = make_demo(flights_dsn, tmp_path, speed=10_000)
    await demo.start()
    await until(lambda: departed(flights_dsn) > 10)
    assert query(flights_dsn, "select count(*) from departures where flight_id > 336776") == [(0,)]
    await demo.stop()


async def test_the_replay_waits_for_a_database_that_went_away(flights_dsn: str, tmp_path: Path) -> None:
    demo = make_demo(flights_dsn, tmp_path, speed=10_000)
    database = demo._database
    true_dsn, database.dsn = database.dsn, flights_dsn.replace("port=5432", "port=5433")  # type: ignore[attr-defined]
    await demo.start()
    assert demo._replay is not None
    await until(lambda: demo._replay is not None and demo._replay.waiting)
    assert (await demo.health()).status == "degraded"
    database.dsn = true_dsn  # type: ignore[attr-defined]
    await until(lambda: departed(flights_dsn) > 10)
    await until(lambda: demo._replay is not None and not demo._replay.waiting)
    await demo.stop()


async def test_speed_zero_plays_nothing(dsn: str, tmp_path: Path) -> None:
    demo = make_demo(dsn, tmp_path, speed=0)
    await demo.start()
    assert demo._replay is None
    await demo.stop()
