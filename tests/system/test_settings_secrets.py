"""A rotated secret reaches who uses it in a real node while its clients stay connected; one that is refused reaches
nobody.
"""

from __future__ import annotations

import asyncio
import http.client
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.maggate.support import token
from tests.integration.magws.support import APP_ID, KEY, Client, connected
from tests.integration.magws.test_reload import subscribe
from tests.system.settings_node import READER, UNWATCHED, Operator, node_with, say, variables

from magmobo.admin.errors import NodeRefused
from magmobo.testing.node import NodeProcess, running_node

pytestmark = pytest.mark.usefixtures("_without_extensions")
GIVEN, REFUSED = "pusher_internal:subscription_succeeded", "pusher:subscription_error"
SETTINGS = f"""{UNWATCHED}
[maggate.jwt]
secret = "SIGNING"

[magws]
apps = [{{ id = "{APP_ID}", key = "{KEY}", secret = "APP" }}]

[gate]
password = "PASSWORD"
"""
COMPONENTS = ("listener", "magds", "maggate", "magws", "Gate")


def new() -> str:
    return secrets.token_hex(24)


async def store(data_dir: Path, **entries: str) -> None:
    """Before the node is there, as a user does."""
    for name, value in entries.items():
        command = [sys.executable, "-m", "magmobo.cli.main", "vault:set", name, "--data-dir", str(data_dir)]
        await asyncio.to_thread(
            subprocess.run, command, input=value, text=True, check=True, capture_output=True, cwd=data_dir.parent,
            env={**variables(*COMPONENTS), "PATH": ""},
        )  # fmt: skip


class Caller:
    """A REST client that keeps its one connection."""

    def __init__(self, node: NodeProcess) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", int(node.base_url.rpartition(":")[2]), timeout=60)
        self._connection.connect()
        self._socket = self._connection.sock

    async def status(self, secret: str) -> int:
        """Of a read with a token that is signed with `secret`."""
        headers = {"Authorization": f"Bearer {token(secret, role=READER)}"}
        return await asyncio.to_thread(self._ask, headers)

    def _ask(self, headers: Mapping[str, str]) -> int:
        self._connection.request("GET", "/rest/v1/events?limit=1", headers=headers)
        answer = self._connection.getresponse()
        answer.read()
        assert self._connection.sock is self._socket, "the connection did not stay"
        return answer.status

    def close(self) -> None:
        self._connection.close()


@asynccontextmanager
async def serving(data_dir: Path, dsn: str) -> AsyncIterator[tuple[Operator, Caller, Client]]:
    """A node with both doors, and a client at each of them."""
    async with running_node(data_dir, dsn, environment=variables(*COMPONENTS)) as node:
        caller = Caller(node)
        try:
            async with connected(node.status.urls["realtime"]) as client:
                yield Operator(data_dir), caller, client
        finally:
            caller.close()


async def test_rotated_secrets_reach_both_doors_and_clients_stay(data_dir: Path, events_dsn: str) -> None:
    signing, app = new(), new()
    await store(data_dir, signing=signing, app=app, password="strong")
    text = SETTINGS.replace("SIGNING", "vault:signing").replace("APP", "vault:app")
    say(data_dir, text.replace("PASSWORD", "vault:password"))
    async with serving(data_dir, events_dsn) as (operator, caller, client):
        assert await caller.status(signing) == 200
        assert await subscribe(client, "private-0", app) == GIVEN
        for turn in range(1, 4):
            next_signing, next_app = new(), new()
            done = await operator.ask("vault:rotate", entry="signing", value=next_signing)
            assert done["reloaded"] == ["maggate.jwt.secret"]
            assert await caller.status(signing) == 401
            assert await caller.status(next_signing) == 200
            done = await operator.ask("vault:rotate", entry="app", value=next_app)
            assert done["reloaded"] == ["magws.apps"]
            assert await subscribe(client, f"private-old-{turn}", app) == REFUSED
            assert await subscribe(client, f"private-new-{turn}", next_app) == GIVEN
            signing, app = next_signing, next_app
        # What MagGate itself, and what a stranger's component refuses, does not count, in the vault either.
        before = await versions(operator)
        for entry, value, reason in (("signing", "too short", "32 bytes"), ("password", "weak one", "is weak")):
            with pytest.raises(NodeRefused) as refused:
                await operator.ask("vault:rotate", entry=entry, value=value)
            assert refused.value.fault_code == "MAG-VAULT-022"
            assert reason in refused.value.text
            assert value not in refused.value.text
            assert await caller.status(signing) == 200
        assert await versions(operator) == {name: version + 2 * (name != "app") for name, version in before.items()}
        outcome = await operator.ask("config:reload")
        assert (outcome["applied"], outcome["plan"]["changes"]) == (False, []), "what counts is what the vault says"
        assert await caller.status(signing) == 200
        assert client.close_code is None


async def versions(operator: Operator) -> dict[str, int]:
    return {use["info"]["name"]: use["info"]["version"] for use in (await operator.ask("vault:list"))["secrets"]}


async def test_secrets_in_files_are_watched_by_nobody_and_taken_by_a_reload(data_dir: Path, events_dsn: str) -> None:
    """A referred file is read again with every reload; a refused one leaves the former secret in both components."""
    signing, app = new(), new()
    files = {name: data_dir.parent / f"{name}.secret" for name in ("signing", "app", "password")}

    def write(**values: str) -> None:
        for name, value in values.items():
            files[name].write_text(value, encoding="utf-8")
            files[name].chmod(0o600)

    write(signing=signing, app=app, password="strong")
    text = SETTINGS
    for name, file in files.items():
        text = text.replace(name.upper(), f"file:{file}")
    say(data_dir, text)
    async with serving(data_dir, events_dsn) as (operator, caller, client):
        assert await caller.status(signing) == 200
        next_signing, next_app = new(), new()
        write(signing=next_signing, app=next_app, password="weak one")
        with pytest.raises(NodeRefused) as refused:
            await operator.ask("config:reload")
        assert "gate: the password is weak" in refused.value.text
        assert (await caller.status(signing), await caller.status(next_signing)) == (200, 401)
        assert await subscribe(client, "private-a", app) == GIVEN
        write(password="strong again")
        outcome = await operator.ask("config:reload")
        assert sorted(outcome["plan"]["live"]) == ["gate", "maggate", "magws"]
        assert (await caller.status(signing), await caller.status(next_signing)) == (401, 200)
        assert await subscribe(client, "private-b", app) == REFUSED
        assert await subscribe(client, "private-b", next_app) == GIVEN


@pytest.mark.usefixtures("_without_database")
async def test_a_rotation_survives_a_kill_right_behind_its_answer(data_dir: Path) -> None:
    await store(data_dir, password="strong")
    say(data_dir, UNWATCHED + '[gate]\npassword = "vault:password"\n')
    operator = Operator(data_dir)
    async with node_with(data_dir, "Gate") as node:
        done = await operator.ask("vault:rotate", entry="password", value="stronger")
        assert done["reloaded"] == ["gate.password"]
        await node.kill()
    async with node_with(data_dir, "Gate"):
        assert await versions(operator) == {"password": 2}
        entry = await operator.entry("gate.password")
        assert (entry["value"], entry["reference"]) == ("***", "vault:password")
        reads = [record["payload"] for record in await operator.records("secret.read")]
        assert {"reference": "vault:password", "version": 2, "setting": "gate.password"} in reads
