"""A node killed in the middle of its boot, wherever that is, starts the next time as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.node.harness import Up, up

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.admin.offline import embedded_access
from magmobo.node.components import DEFAULT_COMPONENTS

# where it dies, and whether that is inside the six stages, so that the next boot says it was interrupted
PLACES = [
    ("AtLookup", False),
    ("AtConfigure", True),
    ("WhileTheClusterIsMade", True),
    ("WhileTheServerStarts", True),
    ("WhenTheDatabaseIsUp", True),
    ("AtStart", True),
    ("WhenTheDoorIsOpen", True),
    ("WhenReady", False),
]


def variables(killer: str = "") -> dict[str, str]:
    names = [*DEFAULT_COMPONENTS, f"tests.crash.boot_parts:{killer}"] if killer else DEFAULT_COMPONENTS
    return {
        "MAG_KERNEL__COMPONENTS": ",".join(names),
        "MAG_MAGDS__SYSTEM_DIR": os.environ["MAG_MAGDS__SYSTEM_DIR"],
        "MAG_LISTENER__PORT": "0",
    }


def die_booting(cwd: Path, killer: str) -> None:
    with up("--data-dir", "mag_data", cwd=cwd, **variables(killer)) as node:
        code, printed, complaints = node.end()
    assert code == -signal.SIGKILL, complaints
    assert not printed


def database_works(folder: DataFolder) -> None:
    with psycopg.connect(embedded_access(folder)[0], autocommit=True) as connection:
        connection.execute("create table if not exists public.after_the_crash (id int primary key)")
        connection.execute("insert into public.after_the_crash values (1) on conflict do nothing")


def served(node: Up) -> dict[str, Any]:
    ready = node.ready()
    assert ready["state"] == "ready", ready
    assert all(one["state"] == "running" for one in ready["components"]), ready
    return ready


def ended(node: Up) -> None:
    node.process.terminate()
    code, _, complaints = node.end()
    assert code == 0, complaints


@pytest.mark.parametrize(("killer", "interrupted"), PLACES, ids=[place for place, _ in PLACES])
def test_a_boot_that_was_killed_is_done_again(tmp_path: Path, killer: str, interrupted: bool) -> None:
    folder = DataFolder(tmp_path / "mag_data")
    die_booting(tmp_path, killer)
    with up("--data-dir", "mag_data", cwd=tmp_path, **variables()) as node:
        served(node)
        database_works(folder)
        report = AdminClient(folder).ask("kernel:blame")
        assert report["interrupted"] is interrupted
        ended(node)


def test_one_crash_after_the_other_on_one_folder_loses_nothing(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "mag_data")
    for killer, _ in PLACES:
        die_booting(tmp_path, killer)
    with up("--data-dir", "mag_data", cwd=tmp_path, **variables()) as node:
        served(node)
        database_works(folder)
        with psycopg.connect(embedded_access(folder)[0]) as connection:
            connection.execute("select id from public.before_the_crash")  # what was committed in the middle of a boot
        ended(node)
    with up("--data-dir", "mag_data", cwd=tmp_path, **variables()) as node:
        served(node)
        assert AdminClient(folder).ask("kernel:blame")["interrupted"] is False
        ended(node)
