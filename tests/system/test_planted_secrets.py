"""Two hundred secrets are planted in a whole node, it is driven hard and crashed, and all it said is searched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import requests
from tests.system.planted import plant, rotate, secrets, spellings
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from magmobo.testing.node import NodeFailed, NodeProcess, running_node, start_node
from magmobo.testing.postgres import PostgresServer

PLANTED = secrets()
EVERYTHING = [secret for place in PLANTED.values() for secret in place]
STRONG = [
    secret
    for place, planted in PLANTED.items()
    for secret in planted
    if place != "rotated" and len(secret) >= 16 and "\n" not in secret
]
"""What may stand in a request: of weaker ones a public door tells whoever says them what he said."""
QUESTIONS = (
    ["status"], ["status", "--json"], ["kernel:status", "--json"], ["component:list", "--json"],
    ["component:show", "leaky"], ["component:show", "leaky", "--json"], ["kernel:blame", "--json"],
    ["kernel:events", "--json", "--lines", "1000"], ["audit:tail", "--json"], ["doctor", "--json"], ["logs"],
    ["config:show", "--json"], ["config:show", "--origin"], ["config:diff"], ["config:history"],
    ["vault:list"], ["vault:list", "--json"],
    ["component:restart", "leaky"], ["component:restart", "leaky", "--json"], ["status"],
)  # fmt: skip
DEADLINE_S = 120


def test_there_are_two_hundred() -> None:
    assert len(set(EVERYTHING)) == 200


async def mag(*words: str, cwd: Path, environ: dict[str, str]) -> bytes:
    """Both streams of one command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "magmobo.cli.main", *words, cwd=cwd, env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    return output


async def fill_vault(data_dir: Path, folder: Path, environ: dict[str, str]) -> None:
    """Before the first start, as somebody would who moves there from a .env file."""
    words = ("vault:import", "--yes", "--json", str(folder / "vault.env"), "--data-dir", str(data_dir))
    output = await mag(*words, cwd=folder, environ=environ)
    assert len(json.loads(output)["added"]) == len(PLANTED["vault"]), output
    assert_none_is_in({"import": output})


def answers_of(node: NodeProcess, token: str) -> list[bytes]:
    """What the public port and the operators' pages say, to requests that quote what was planted too."""
    said: list[bytes] = []
    with requests.Session() as client:

        def ask(method: str, path: str, **more: Any) -> requests.Response:
            return client.request(method, f"{node.base_url}{path}", timeout=20, **more)

        for number, secret in enumerate(STRONG):
            path = quote(secret, safe="")[:1_000]
            answers = [
                ask("GET", f"/rest/v1/{path}"),
                ask("POST", "/rest/v1/things", json={"id": number, "name": secret}),
                ask("GET", "/rest/v1/things", params={f"no_{number}": f"eq.{secret}"}),
                ask("POST", "/rest/v1/things", json={secret: number}),
                ask("GET", "/rest/v1/things", headers={"Authorization": f"Bearer {quote(secret)}"}),
                ask("POST", f"/apps/{number}/events?auth_key={path}", data=path),
                ask("GET", f"/{path}"),
            ]
            said += [b"\n".join([answer.content, repr(answer.headers).encode()]) for answer in answers]
        origin = {"Origin": node.base_url}
        for wrong in ('{"token": 1}', "{", json.dumps({"token": STRONG[0]})):
            headers = {**origin, "Content-Type": "application/json"}
            said.append(ask("POST", "/console/login", data=wrong, headers=headers).content)
        login = ask("POST", "/console/login", json={"token": token}, headers=origin)
        assert login.ok, "the pages behind the sign-in must be among what is looked at"
        said += [login.content, ask("GET", "/console/").content]
        for path in ("/console/api/status", "/console/api/session", "/readyz?verbose", "/livez", "/startupz"):
            said.append(ask("GET", path).content)
        said.append(ask("GET", "/console/api/settings").content)
        said.append(client.get(node.status.urls["metrics"], timeout=20).content)
    return said


async def frames_of(node: NodeProcess) -> list[bytes]:
    """What the realtime door says to clients that quote what was planted."""
    said: list[bytes] = []
    base = node.base_url.replace("http", "ws", 1)
    for number, secret in enumerate(STRONG):
        for key in (f"app-{number % 20 + 1}", quote(secret, safe="")[:1_000]):
            try:
                async with connect(f"{base}/app/{key}?protocol=7", open_timeout=20) as socket:
                    subscribe = {"event": "pusher:subscribe", "data": {"channel": f"private-{number}", "auth": secret}}
                    for frame in (json.dumps(subscribe), json.dumps({"event": secret[:60], "data": {}}), secret):
                        await socket.send(frame)
                    async with asyncio.timeout(20):
                        async for answer in socket:
                            said.append(answer.encode() if isinstance(answer, str) else answer)
                            if len(said) % 4 == 0:
                                break
                    said.append(str(socket.close_reason).encode())
            except (WebSocketException, OSError, TimeoutError) as error:
                said.append(str(error).encode())
    return said


def processes_of(pid: int) -> Iterator[bytes]:
    """Command lines of the node and of everything it started, and the environments of the latter."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    parents = dict(zip(map(int, listed[::2]), map(int, listed[1::2]), strict=True))
    family = [pid]
    for one in family:
        family += [child for child, parent in parents.items() if parent == one]
    for one in family:
        for what in ("cmdline", "environ") if one != pid else ("cmdline",):
            try:
                yield Path(f"/proc/{one}/{what}").read_bytes()
            except OSError:
                continue


def files_of(folder: Path) -> dict[str, bytes]:
    """What is kept in the data folder, without what is there to hold secrets or the node's own durable state."""
    kept = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in kept.items() if name.parts[0] not in ("secrets", "state")}


def contents_of(archive: Path) -> dict[str, bytes]:
    with tarfile.open(fileobj=BytesIO(archive.read_bytes())) as packed:
        members = [member for member in packed.getmembers() if member.isfile()]
        return {member.name: packed.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def assert_none_is_in(said: dict[str, bytes]) -> None:
    assert all(said.values())
    for place, text in said.items():
        for secret in EVERYTHING:
            for spelling in spellings(secret):
                if spelling in text:
                    at = text.index(spelling)
                    raise AssertionError(
                        f"{place}: {spelling!r} in {text[max(0, at - 200) : at + len(spelling) + 60]!r}"
                    )


@pytest.fixture
def environ(postgres: PostgresServer, dsn: str, tmp_path: Path) -> dict[str, str]:
    """Of a node in `tmp_path` that has all of them."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("create table things (id int primary key, name text)")
        admin.execute("do $$ begin create role mag_planted nologin; exception when duplicate_object then null; end $$")
        admin.execute("grant select, insert on things to mag_planted")
        admin.execute(
            "create function leak() returns trigger language plpgsql as "
            "$$ begin raise exception 'it is %', new.name using detail = new.name, hint = new.name; end $$"
        )
        admin.execute("create trigger leak before insert on things for each row execute function leak()")
    return plant(tmp_path, PLANTED, database=dsn.rpartition("dbname=")[2], socket_dir=postgres.socket_dir)


async def test_nothing_planted_comes_out(environ: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    await fill_vault(data_dir, tmp_path, environ)
    said: dict[str, bytes] = {}
    node = await start_node(data_dir, environment=environ, cwd=tmp_path)
    try:
        folder = ("--data-dir", str(data_dir))
        said["answers"] = b"\n".join(await asyncio.to_thread(answers_of, node, node.admin_token))
        said["frames"] = b"\n".join(await frames_of(node))
        for number, words in enumerate(QUESTIONS):
            output = await mag(*words, *folder, cwd=tmp_path, environ=environ)
            said[f"mag {' '.join(words)} ({number})"] = output
        rotate(tmp_path, PLANTED)
        said["reload"] = await mag("config:reload", "--json", "--yes", *folder, cwd=tmp_path, environ=environ)
        said["start"] = await mag("component:start", "leaky", *folder, cwd=tmp_path, environ=environ)
        for words in (["config:show", "--json"], ["config:history", "--json"], ["audit:tail", "--json"]):
            said[f"after {' '.join(words)}"] = await mag(*words, *folder, cwd=tmp_path, environ=environ)
        archive = tmp_path / "dump.tar.gz"
        said["mag dump"] = await mag(
            "diagnostics:dump", "--output", str(archive), *folder, cwd=tmp_path, environ=environ
        )
        said |= {f"dump {name}": content for name, content in contents_of(archive).items() if content}
        said["processes"] = b"\n".join(processes_of(node.process.pid))
        node.process.send_signal(signal.SIGABRT)
        async with asyncio.timeout(30):
            assert await node.process.wait() == -signal.SIGABRT
    finally:
        await node.kill()
    said["printed"] = node.printed.encode()
    said |= {name: content for name, content in files_of(data_dir).items() if content}

    log = said["logs/mag.jsonl"]
    assert log.count(b"cannot use") >= 2 * len(EVERYTHING), "the component said them, or nothing would be proven"
    assert log.count(b"***") > 20 * len(EVERYTHING)
    assert b"it said ***" in said["mag kernel:events --json --lines 1000 (7)"]
    restarts = [text for place, text in said.items() if "component:restart" in place]
    assert sum(b"cannot start with" in text for text in restarts) >= 1
    assert json.loads(said["reload"])["applied"] is True
    assert log.count(b'"rotated":0') >= 1
    assert log.count(b'"rotated":2') == 1
    assert b'"reference": "vault:k3"' in said["mag config:show --json (11)"]
    assert b"it is ***" in said["answers"]
    assert_none_is_in(said)


async def test_a_node_that_does_not_start_says_nothing_either(environ: dict[str, str], tmp_path: Path) -> None:
    source = (tmp_path / "leaky.py").read_text()
    await fill_vault(tmp_path / "data", tmp_path, environ)
    await fill_vault(tmp_path / "other", tmp_path, environ)
    (tmp_path / "leaky.py").write_text(source.replace("self._starts > 1", "self._starts > 0"))
    with pytest.raises(NodeFailed) as failure:
        async with running_node(tmp_path / "data", environment=environ, cwd=tmp_path):
            raise AssertionError("it started")
    background = await mag(
        "up", "--background", "--port", "0", "--data-dir", str(tmp_path / "other"), cwd=tmp_path, environ=environ
    )
    assert "cannot start with" in str(failure.value)
    assert b"cannot start with" in background
    files = {name: content for name, content in files_of(tmp_path / "data").items() if content}
    assert_none_is_in({"foreground": str(failure.value).encode(), "background": background, **files})
