"""Secrets are planted in a whole node, then looked for everywhere they could come out again."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import psycopg

from magmobo.testing.node import running_node
from magmobo.testing.postgres import PostgresServer

MAG = Path(sys.executable).with_name("mag")
PASSWORD = "planted-Passw0rd"
JWT_SECRET = "planted-jwt-secret-of-more-than-32-bytes"
APP_SECRET = "planted-app-secret-0123456789"
SETTINGS = f"""
[maggate.jwt]
secret = "{JWT_SECRET}"

[[magws.apps]]
id = "1"
key = "planted-key"
secret = "{APP_SECRET}"

[logging]
level = "debug"
"""


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    found = [int(word) for word in listed.stdout.split()]
    return found + [grandchild for child in found for grandchild in children_of(child)]


def command_line(pid: int) -> bytes:
    return of_process(pid, "cmdline")


def environment(pid: int) -> bytes:
    return of_process(pid, "environ")


def of_process(pid: int, what: str) -> bytes:
    """Nothing for a worker of the database that has ended since it was listed."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def open_files(pid: int) -> list[str]:
    try:
        return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    except (FileNotFoundError, ProcessLookupError):
        return []


async def mag(*arguments: str, cwd: Path, environ: dict[str, str]) -> bytes:
    process = await asyncio.create_subprocess_exec(
        MAG, *arguments, cwd=cwd, env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return output


def fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": "Bearer a.b.c"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()


async def test_nothing_planted_comes_out(postgres: PostgresServer, dsn: str, tmp_path: Path) -> None:
    data_dir, name = tmp_path / "data", dsn.rpartition("dbname=")[2]
    (tmp_path / "mag.toml").write_text(SETTINGS)
    url = f"postgres://postgres:{PASSWORD}@/{name}?host={postgres.socket_dir}&port=5432"
    environ = {"DATABASE_URL": url}
    async with running_node(data_dir, environment=environ) as node:
        printed = node.printed
        token, pid = node.admin_token, node.process.pid
        with psycopg.connect(dsn, autocommit=True) as admin:  # connections that break are told about
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
        outputs = [
            await mag(*words, "--data-dir", str(data_dir), cwd=tmp_path, environ=environ)
            for words in (["status"], ["status", "--json"], ["kernel:status", "--json"], ["component:list", "--json"],
                          ["doctor", url], ["doctor", "--json"], ["logs"], ["logs", "--json"], ["detach", "--dry-run"])
        ]  # fmt: skip
        base = node.base_url
        paths = ("/rest/v1/", "/rest/v1/x", "/console/", "/console/api/status", "/readyz", "/apps/1/channels", "/x")
        answers = [await asyncio.to_thread(fetch, base + path) for path in paths]
        lines = [command_line(process) for process in (pid, *children_of(pid))]
    wrong = [
        await mag("up", text, "--data-dir", str(tmp_path / "other"), "--port", "0", cwd=tmp_path, environ={})
        for text in (f"postgres://u:{PASSWORD}@127.0.0.1:1/x", f"host=/none password={PASSWORD}", f"postgres://{PASSWORD}@[x")
    ]  # fmt: skip

    files = [path.read_bytes() for path in data_dir.rglob("*") if path.is_file()]
    for secret in (PASSWORD, JWT_SECRET, APP_SECRET):
        for place in (*outputs, *answers, *lines, *wrong, *files, printed.encode()):
            assert secret.encode() not in place, (secret, place[:2_000])
    for place in (*outputs, *answers, *lines, *files):
        assert token.encode() not in place


async def test_an_embedded_database_is_private_whatever_the_umask_says(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    former = os.umask(0)
    try:
        async with running_node(data_dir, "--demo", "tasks") as node:
            postgres = children_of(node.process.pid)
            shown = b"".join(command_line(process) + environment(process) for process in postgres)
            paths = [data_dir, *data_dir.rglob("*")]
            modes = {str(path): path.lstat().st_mode for path in paths if not path.is_symlink()}
            kept = (data_dir / "postgres" / "passwords.json").read_bytes()
            generated = tomllib.loads((data_dir / "secrets" / "generated.toml").read_text())
            inherited = [open_file for process in postgres for open_file in open_files(process)]
    finally:
        os.umask(former)

    assert postgres
    assert shown
    assert not [path for path, mode in modes.items() if stat.S_IMODE(mode) & 0o077 and "/cluster/" not in path]
    secrets = [word for word in kept.decode().split('"') if len(word) > 20]
    secrets += [generated["magws"]["apps"][0]["secret"], generated["demo"]["jwt_secret"], node.admin_token]
    assert len(secrets) == 5
    assert not [secret for secret in secrets if secret.encode() in shown]
    # the database's processes hold nothing of ours but their log
    assert {path for path in inherited if path.startswith(str(data_dir))} <= {
        str(data_dir / "postgres" / "postgres.log"),
        *(path for path in inherited if "/cluster/" in path),
    }
