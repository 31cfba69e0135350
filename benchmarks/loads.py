"""Load generators in processes of their own: wrk for HTTP, pgbench for Postgres.

Both run closed loops: the next request of a connection is sent when its last one is answered.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from benchmarks.gateway_sql import Script
from benchmarks.measure import Sample
from magmobo.testing.postgres import pg_binary

# The requests are written down before the clock starts; LuaJIT only hands out the next one.
_WRK_SCRIPT = """
local paths, headers, requests, turn = {}, {}, {}, 0
for line in io.lines(os.getenv("BENCH_PATHS")) do paths[#paths + 1] = line end
headers["Host"] = "localhost"
if os.getenv("BENCH_TOKEN") ~= "" then headers["Authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN") end
function init(args) for i, path in ipairs(paths) do requests[i] = wrk.format("GET", path, headers) end end
function request() turn = turn % #requests + 1; return requests[turn] end
function done(summary, latency, requests)
  local bad = summary.errors
  io.write(string.format('\\nBENCH {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "failed": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    bad.connect + bad.read + bad.write + bad.status + bad.timeout))
end
"""
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_ENVIRONMENT = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD"}


def wrk(
    origin: str, paths: Sequence[str], folder: Path, *, connections: int, duration_s: int, token: str = ""
) -> Sample:
    """GET the paths in turn. Requests per second, and the latency's percentiles in milliseconds.

    Raises: RuntimeError when a request failed: a fast error is no figure.
    """
    script, list_file = folder / "requests.lua", folder / "paths.txt"
    script.write_text(_WRK_SCRIPT)
    list_file.write_text("\n".join(paths) + "\n")
    command: list[str | Path] = [
        _wrk_program(),
        "-t1",
        f"-c{connections}",
        f"-d{duration_s}s",
        "--timeout",
        "10s",
        "-s",
        script,
        origin,
    ]
    environment = {**os.environ, "BENCH_PATHS": str(list_file), "BENCH_TOKEN": token}
    printed = _output(command, environment, duration_s)
    summary = json.loads(printed.partition("\nBENCH ")[2])
    if summary["failed"]:
        raise RuntimeError(f"{summary['failed']} of {summary['requests']} requests failed")
    return {
        "per_s": summary["requests"] / summary["duration_us"] * 1e6,
        "p50_ms": summary["p50_us"] / 1e3,
        "p99_ms": summary["p99_us"] / 1e3,
    }


def pgbench(dsn: str, script: Script, folder: Path, *, connections: int, duration_s: int) -> Sample:
    """Run the script's transaction again and again, with prepared statements. Transactions per second.

    Raises: RuntimeError when one of them failed.
    """
    file = folder / "transaction.sql"
    file.write_text(script.text)
    command: list[str | Path] = [
        pg_binary("pgbench"),
        "-n",
        "-M",
        "prepared",
        f"-c{connections}",
        "-j1",
        f"-T{duration_s}",
        "-f",
        file,
    ]
    command += [f"-D{name}={value}" for name, value in script.variables.items()]
    printed = _output(command, {**os.environ, **_access(dsn)}, duration_s)
    found = _TPS.search(printed)
    if found is None or "number of failed transactions: 0 " not in printed:
        raise RuntimeError(f"pgbench: {printed}")
    return {"per_s": float(found.group(1))}


def _output(command: Sequence[str | Path], environment: Mapping[str, str], duration_s: int) -> str:
    answer = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=duration_s + 60
    )
    if answer.returncode:
        raise RuntimeError(f"{command[0]}: {answer.stderr.strip()}")
    return answer.stdout


def _wrk_program() -> str:
    path = shutil.which("wrk")
    if path is None:
        raise RuntimeError("wrk is not installed: start it with `make bench`")
    return path


def _access(dsn: str) -> dict[str, str]:
    """The connection string as environment: a command line is everybody's to read."""
    return {_ENVIRONMENT[key]: str(value) for key, value in conninfo_to_dict(dsn).items() if key in _ENVIRONMENT}
