"""The runbooks' commands, run against a node in which the fault they are about was injected first."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from tests.integration.magds.rotation import require_password
from tests.integration.node.harness import ROOT
from tests.system.extension_shell import Shell, example, packed, trusted, until

from magmobo.testing.node import NodeFailed, running_node, start_node
from magmobo.testing.postgres import PostgresServer, pg_binary

RUNBOOKS = ROOT / "docs" / "runbooks"
_BLOCK = re.compile(r"^ *```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CULPRIT = '''
from pathlib import Path

from magmobo.contracts.component import Component, Context


class Culprit(Component):
    """Does what its file says: `boot` fails to boot, `task` fails a moment after it started, anything else works."""

    name = "culprit"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._order = Path(__file__).with_name("order")

    async def boot(self) -> None:
        if self._order.read_text() == "boot":
            raise RuntimeError("the licence server does not answer")

    async def start(self) -> None:
        self._context.spawn(self._work(), name="work")

    async def _work(self) -> None:
        if self._order.read_text() == "task":
            raise RuntimeError("the work failed")
'''
CONFIG = """
[kernel]
components = ["listener", "magds", "maggate", "magws", "extensions", "console", "culprit:Culprit"]

[recovery]
restarts = 1
backoff_s = 0.01
"""


# Exit 4 says that something is wrong, which is why the page is read; starting what runs already is refused with 1.
MAY_BE = {
    "mag doctor": {0, 1},
    "mag status": {0, 4},
    "mag component:list": {0, 4},
    "mag component:show culprit": {0, 4},
    "mag component:start culprit": {0, 1},
    "mag extension:list": {0, 4},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "culprit.py").write_text(CULPRIT, encoding="utf-8")
    (tmp_path / "mag.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def order(folder: Path, what: str) -> None:
    (folder / "order").write_text(what, encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "HOME": str(folder), "PYTHONPATH": str(folder), "MAG_LISTENER__PORT": "0"}


def commands_of(name: str) -> list[str]:
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    return [line.strip().removeprefix("$ ") for block in _BLOCK.findall(text) for line in block.splitlines()]


def follow(folder: Path, name: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Run every command of a runbook, in the folder where the node's configuration lies; what each printed."""
    printed = {}
    exports: list[str] = []
    for command in commands_of(name):
        if command.startswith("export "):
            exports.append(command)
        done = subprocess.run(
            ["/bin/bash", "-e", "-c", "\n".join([*exports, command])], cwd=folder, env=environ or environment(folder),
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode in MAY_BE.get(command, {0}), f"{command}\n{done.stdout}\n{done.stderr}"
        printed[command] = done.stdout + done.stderr
    return printed


async def test_boot_failure(folder: Path) -> None:
    order(folder, "boot")
    with pytest.raises(NodeFailed, match="licence server"):
        await start_node(folder / "mag_data", environment=environment(folder), cwd=folder)
    printed = follow(folder, "boot-failure")
    assert "licence server" in printed["mag logs --lines 20"]
    assert "disabled" in printed["mag component:list"]
    assert "ready" in printed["mag status"]


async def test_component_restart(folder: Path) -> None:
    order(folder, "")
    async with running_node(folder / "mag_data", environment=environment(folder), cwd=folder):
        order(folder, "task")
        subprocess.run(
            [sys.executable, "-m", "magmobo.cli.main", "component:restart", "culprit"],
            env=environment(folder), cwd=folder, check=False, capture_output=True, timeout=30,
        )  # fmt: skip
        order(folder, "")
        printed = follow(folder, "component-restart")
        assert "running" in printed["mag component:restart culprit"]
        assert "component.failed" in printed["mag kernel:events --pattern 'component.**'"]
        assert printed["mag audit:tail"].count("component.restart") >= 4
        assert "component.disable" in printed["mag audit:tail"]


async def test_config_change(folder: Path) -> None:
    order(folder, "")
    async with running_node(folder / "mag_data", environment=environment(folder), cwd=folder):
        printed = await asyncio.to_thread(follow, folder, "config-change")
    assert (
        "10000" in printed["mag config:show maggate.max_rows --origin"]
    )  # asked thrice, the last time after the way back
    assert "debug" in printed["mag config:show logging.level --origin"]


async def test_vault(folder: Path) -> None:
    order(folder, "")
    async with running_node(folder / "mag_data", environment=environment(folder), cwd=folder):
        printed = await asyncio.to_thread(follow, folder, "vault")
    assert "vault:signing-key" in printed["mag config:show maggate.jwt.secret --origin"]
    assert "mail_password" in printed["mag vault:import secrets.env"]
    assert "correct-horse" not in "".join(printed.values())
    assert "secret.read" in printed["mag audit:tail"]


LOGIN = "app"  # as the page calls it


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """A database of a role whose password is `first`; the DSN is the superuser's."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"create role {LOGIN} login replication password 'first'".encode())
        require_password(postgres, LOGIN)
    with postgres.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"alter database {admin.info.dbname} owner to {LOGIN}".encode())
        yield dsn
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"alter database {admin.info.dbname} owner to postgres".encode())
            admin.execute(f"drop owned by {LOGIN} cascade".encode())
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"drop role {LOGIN}".encode())


async def test_rotate_database_password(tmp_path: Path, database: str) -> None:
    own = database.replace("user=postgres", f"user={LOGIN} password=${{vault:database-password}}")
    (tmp_path / "mag.toml").write_text(f'[magds]\ndsn = "{own}"\n', encoding="utf-8")
    of_shell = environment(tmp_path) | {"ADMIN_DSN": database, "FORMER_PASSWORD": "first"}
    of_shell["PATH"] += f"{os.pathsep}{pg_binary('psql').parent}"
    subprocess.run(
        ["/bin/bash", "-c", "printf first | mag vault:set database-password"],
        cwd=tmp_path, env=of_shell, check=True, timeout=60, capture_output=True,
    )  # fmt: skip
    async with running_node(tmp_path / "mag_data", environment=of_shell, cwd=tmp_path):
        printed = await asyncio.to_thread(follow, tmp_path, "rotate-database-password", of_shell)
    assert "magds.dsn" in printed["mag vault:list"]
    assert "secret" in printed["mag config:history --limit 1"]
    assert "running" in printed["mag component:show magds"]
    assert "secret.rotate" in printed["mag audit:tail"]
    assert not (tmp_path / "new-password").exists()


INSERT_LATE_FLIGHT = """
insert into public.departures (carrier, flight, origin, dest, dep_delay, dep_at, sched_at, flight_id)
values ('AA', 4711, 'JFK', 'SEA', 90, now(), now(), 1)
"""


async def install_misbehaving(folder: Path, operator: Shell) -> None:
    """Delay alerts, and a version after it that knows no departures."""
    good = await example(Shell(folder), "delay-alerts")
    code, manifest = folder / "delay-alerts" / "extension.py", folder / "delay-alerts" / "manifest.json"
    code.write_text(code.read_text(encoding="utf-8").replace('flight["dep_delay"] <', 'flight["delay"] <'))
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"1.0.0"', '"1.1.0"'), encoding="utf-8")
    bad = await packed(Shell(folder), "delay-alerts")
    await trusted(operator)
    await operator.mag("extension:install", good, "--approve", "--enable", "--yes")
    await operator.mag("extension:upgrade", bad, "--yes")


async def test_extension(tmp_path: Path) -> None:
    # The runbook's shell finds the node as anybody's does, from the folder that it stands in.
    async with running_node(
        tmp_path / "mag_data", "--demo", "flights", environment=environment(tmp_path), cwd=tmp_path
    ) as node:
        operator = Shell(tmp_path, node)
        await install_misbehaving(tmp_path, operator)
        dsn = (await operator.mag("magds:dsn")).strip()
        with psycopg.connect(dsn, autocommit=True) as application:
            application.execute(INSERT_LATE_FLIGHT)
        await until(lambda: complained(operator))
        printed = await asyncio.to_thread(follow, tmp_path, "extension")
    assert "1.1.0" in printed["mag extension:list"]
    assert "events" in printed["mag extension:show delay-alerts"]
    assert "KeyError: 'delay'" in printed["mag extension:logs delay-alerts"]
    assert "disabled" in printed["mag extension:disable delay-alerts --yes"]
    assert "delay-alerts 1.1.0 would go back" in printed["mag extension:rollback delay-alerts --dry-run"]
    assert "revoked" in printed["mag extension:revoke delay-alerts realtime.broadcast"]
    assert "granted" in printed["mag extension:grant delay-alerts realtime.broadcast --rate 10"]
    assert "enabled" in printed["mag extension:enable delay-alerts"]
    assert "extension.revoke" in printed["mag audit:tail --extension delay-alerts"]
    assert "the author" in printed["mag extension:trust"]


async def complained(operator: Shell) -> bool:
    return "could not take an event" in await operator.mag("extension:logs", "delay-alerts")


@pytest.mark.usefixtures("_without_extensions")
def test_add_settings(tmp_path: Path) -> None:
    text = (RUNBOOKS / "add-settings.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^ *```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "greeter.py").write_text(textwrap.dedent(code), encoding="utf-8")
    try:
        strangers = {name: text for name, text in environment(tmp_path).items() if name != "PYTHONPATH"}
        printed = follow(tmp_path, "add-settings", strangers)
    finally:
        subprocess.run(
            [sys.executable, "-m", "magmobo.cli.main", "down"], cwd=tmp_path, capture_output=True, check=False
        )
    assert "good morning" in printed["mag config:show greeter --origin"]
    assert 'did you mean "greeting"?' in printed['mag config:validate || echo "exit code $?"']
    refused = printed['mag config:set greeter.greeting "good bye" --yes || echo "exit code $?"']
    assert "says goodbye" in refused
    assert "exit code 5" in refused
    assert "good evening" in printed["mag config:show greeter.greeting --origin"]
    schema = json.loads((tmp_path / "mag.schema.json").read_text(encoding="utf-8"))
    assert "greeter" in schema["properties"]
