"""The embedded server's life: kill -9 of node and server, bad places, majors, full disks; as root and as a user."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog

from magmobo.components.magds.binaries import binaries_for, choose_binaries, find_binaries, parts_of
from magmobo.components.magds.cluster import Cluster, prepare_cluster
from magmobo.components.magds.errors import (
    BinariesMissing,
    ClusterDamaged,
    ClusterInUse,
    ClusterVersionMismatch,
    DiskFull,
    PlaceRefused,
    ServerStartFailed,
)
from magmobo.components.magds.place import Records
from magmobo.components.magds.processes import exists, serving
from magmobo.components.magds.supervisor import PostgresServer
from magmobo.kernel.audit.errors import AuditLogInUse

NOBODY = 65_534
IS_ROOT = os.geteuid() == 0
SCRIPT = Path(__file__).with_name("node_process.py")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short folder that other users may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="magemb"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


class Node:
    """A node in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def say(self, key: str) -> Any:
        """The next line's value under `key`; other lines are passed over."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while line := await self.process.stdout.readline():
                if line.startswith(b"{") and key in (facts := json.loads(line)):
                    return facts[key]
        raise AssertionError(f"the node ended without saying {key}")

    async def kill(self) -> int:
        """kill -9; returns the last row it had announced."""
        self.process.kill()
        assert self.process.stdout is not None
        lines = (await self.process.stdout.read()).splitlines()
        await self.process.wait()
        return max((json.loads(line)["row"] for line in lines if line.startswith(b'{"row"')), default=0)

    async def end(self) -> None:
        """SIGTERM, and the clean end that must follow."""
        self.process.terminate()
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            await self.process.stdout.read()
            assert await self.process.wait() == 0


async def run_node(scratch: Path, uid: int | None, **magds: Any) -> Node:
    data_dir = scratch / "data"
    if not data_dir.exists():
        data_dir.mkdir(mode=0o700)
        if uid:
            os.chown(data_dir, uid, uid)
    bin_dir = binaries_for(next(find_binaries()), uid, scratch).bin_dir if uid else next(find_binaries()).bin_dir
    options = {
        "data_dir": str(data_dir),
        "uid": uid,
        "magds": {"system_dir": str(scratch / "system"), "bin_dir": str(bin_dir)} | magds,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, json.dumps(options), stdout=subprocess.PIPE, cwd="/"
    )
    return Node(process)


def pgdata_of(scratch: Path) -> Path:
    place = Records(scratch / "data").place()
    assert place is not None
    return place.cluster


async def until_nobody_serves(pgdata: Path) -> None:
    async with asyncio.timeout(20):
        while serving(pgdata):
            await asyncio.sleep(0.01)


USERS = [pytest.param(None, id="as-we-are"), *([pytest.param(NOBODY, id="as-a-plain-user")] if IS_ROOT else [])]


@pytest.mark.parametrize("uid", USERS)
async def test_a_killed_node_leaves_no_orphan_and_loses_no_row(scratch: Path, uid: int | None) -> None:
    node = await run_node(scratch, uid)
    await node.say("ready")
    pgdata = pgdata_of(scratch)
    assert (pgdata.stat().st_mode & 0o777) == 0o700
    assert pgdata.stat().st_uid not in ({0} if IS_ROOT else set())
    last = 0
    for restart_at_once in (False, True, True):
        await node.say("row")
        last = max(last, await node.say("row"), await node.kill())
        if not restart_at_once:
            await until_nobody_serves(pgdata)
        node = await run_node(scratch, uid)
        assert await node.say("rows") >= last
        await node.say("ready")
    sockets = json.loads((scratch / "data/postgres/runtime.json").read_text())["socket_dir"]
    await node.end()
    assert serving(pgdata) == []
    assert not Path(sockets).exists()
    assert not (scratch / "data/postgres/runtime.json").exists()


async def test_a_second_node_on_the_same_folder_is_refused_and_harms_nothing(scratch: Path) -> None:
    node = await run_node(scratch, None)
    await node.say("ready")
    second = await run_node(scratch, None)
    assert await second.say("error") == AuditLogInUse.code  # the first thing of ours that it comes to
    await second.process.wait()
    await node.say("row")
    await node.end()


# ---------------------------------------------------------------- in this process


def prepare(scratch: Path, bin_dir: str | None = None) -> Cluster:
    data_dir = scratch / "data"
    data_dir.mkdir(mode=0o700, exist_ok=True)
    return prepare_cluster(data_dir, bin_dir=bin_dir, system_dir=scratch / "system")


@asynccontextmanager
async def serving_cluster(cluster: Cluster) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(
        cluster,
        max_slot_wal_keep_size_bytes=1 << 30,
        start_timeout_s=30,
        stop_timeout_s=10,
        log=structlog.get_logger(),
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_a_cluster_is_run_by_its_own_major(scratch: Path) -> None:
    for binaries in find_binaries():
        if binaries.major < 15:
            continue
        place = scratch / str(binaries.major)
        place.mkdir(mode=0o711, exist_ok=True)
        prepare(place, str(binaries.bin_dir))
        again = prepare(place)
        assert again.binaries.major == binaries.major
        async with serving_cluster(again) as server:
            with psycopg.connect(server.conninfo()) as connection:
                assert connection.info.server_version // 10_000 == binaries.major


async def test_a_cluster_of_a_major_nobody_has_is_left_alone(scratch: Path) -> None:
    cluster = prepare(scratch)
    (cluster.pgdata / "PG_VERSION").write_text("13\n")
    with pytest.raises(ClusterVersionMismatch) as caught:
        prepare(scratch)
    assert caught.value.major == 13
    assert "Postgres 13" in caught.value.next_step()
    assert (cluster.pgdata / "PG_VERSION").read_text() == "13\n"


def test_no_binaries_anywhere(scratch: Path) -> None:
    with pytest.raises(BinariesMissing):
        choose_binaries(str(scratch), cluster=scratch, major=None)


async def test_an_interrupted_first_start_begins_anew(scratch: Path) -> None:
    cluster = prepare(scratch)
    records = cluster.records
    (records.folder / "place.json").write_text(
        (records.folder / "place.json").read_text().replace('"initialised":true', '"initialised":false')
    )
    cluster.pgdata.rename(cluster.pgdata.with_name("cluster.new"))
    (cluster.pgdata.with_name("cluster.new") / "PG_VERSION").unlink()
    async with serving_cluster(prepare(scratch)) as server:
        psycopg.connect(server.conninfo()).close()
    assert not cluster.pgdata.with_name("cluster.new").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: shutil.rmtree(c.pgdata),
        lambda c: (c.pgdata / "PG_VERSION").unlink(),
        lambda c: (c.pgdata / "PG_VERSION").write_text("what\n"),
        lambda c: (c.records.folder / "place.json").write_text("{"),
        lambda c: (c.records.folder / "place.json").write_text('{"home":".","owner":null,"initialised":1,"x":2}'),
        lambda c: (c.records.folder / "passwords.json").unlink(),
        lambda c: (c.records.folder / "passwords.json").write_text('{"superuser": 1}'),
    ],
    ids=["no cluster", "no version", "odd version", "half place", "odd place", "no passwords", "odd passwords"],
)
def test_what_vanished_or_is_damaged_is_an_error_never_a_new_cluster(scratch: Path, damage: Any) -> None:
    cluster = prepare(scratch)
    damage(cluster)
    with pytest.raises(ClusterDamaged):
        prepare(scratch)


async def test_a_server_that_does_not_start_shows_its_last_words(scratch: Path) -> None:
    cluster = prepare(scratch)
    with (cluster.pgdata / "postgresql.conf").open("a") as settings:
        settings.write("shared_buffers = 'lots'\n")
    with pytest.raises(ServerStartFailed, match="shared_buffers"):
        async with serving_cluster(cluster):
            pass
    assert serving(cluster.pgdata) == []


async def test_a_lock_file_that_names_another_program_is_no_obstacle(scratch: Path) -> None:
    cluster = prepare(scratch)
    owner = cluster.place.owner.uid if cluster.place.owner else None
    other = subprocess.Popen(["sleep", "60"], user=owner, cwd="/")
    try:
        (cluster.pgdata / "postmaster.pid").write_text(f"{other.pid}\n{cluster.pgdata}\n1\n5432\n/tmp\n\n\n")
        async with serving_cluster(cluster) as server:
            psycopg.connect(server.conninfo()).close()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


async def test_a_server_started_by_hand_is_not_ours_to_stop(scratch: Path) -> None:
    cluster = prepare(scratch)
    by_hand = subprocess.Popen(
        [cluster.binaries.bin_dir / "postgres", "-D", cluster.pgdata, "-c", "listen_addresses=",
         "-c", f"unix_socket_directories={cluster.pgdata}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **cluster.spawn_options(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            while by_hand.pid not in serving(cluster.pgdata) or not (cluster.pgdata / "postmaster.pid").exists():
                await asyncio.sleep(0.01)
        with pytest.raises(ClusterInUse):
            async with serving_cluster(cluster):
                pass
        assert by_hand.poll() is None
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait(20)


async def test_a_killed_postmaster_is_cleared_away_before_the_next_start(scratch: Path) -> None:
    cluster = prepare(scratch)
    async with serving_cluster(cluster) as server:
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute("create table kept as select 1 as x")
            assert server.pid is not None
            supervision = asyncio.create_task(server.supervise())
            for number in (1, 2):
                pid = server.pid
                os.kill(pid, signal.SIGKILL)
                async with asyncio.timeout(20):
                    while server.restarts < number:
                        await asyncio.sleep(0.01)
                assert not exists(pid)  # reaped, no zombie
        with psycopg.connect(server.conninfo()) as connection:
            assert connection.execute("select x from kept").fetchone() == (1,)
    await asyncio.wait_for(supervision, 30)


# ---------------------------------------------------------------- places


if IS_ROOT:

    @contextmanager
    def small_disk(folder: Path, size: str) -> Iterator[None]:
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)

    def fill_up(filler: Path) -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4_096)

    async def test_a_full_disk_leaves_no_half_cluster_and_heals(scratch: Path) -> None:
        with small_disk(scratch / "system", "12m"):
            with pytest.raises(DiskFull):
                prepare(scratch)
            place = Records(scratch / "data").place()
            assert place is not None
            assert not place.cluster.exists()
            assert not place.cluster.with_name("cluster.new").exists()
            subprocess.run(["mount", "-o", "remount,size=200m", scratch / "system"], check=True)
            cluster = prepare(scratch)
            async with serving_cluster(cluster) as server:
                psycopg.connect(server.conninfo()).close()
            filler = scratch / "system/filler"
            fill_up(filler)
            with pytest.raises(DiskFull):
                async with serving_cluster(cluster):
                    pass
            filler.unlink()
            async with serving_cluster(cluster) as server:
                psycopg.connect(server.conninfo()).close()

    async def test_root_keeps_clusters_apart_under_uids_of_their_own(scratch: Path) -> None:
        clusters = []
        for name in ("one", "two"):
            (scratch / name).mkdir(mode=0o700)
            clusters.append(prepare_cluster(scratch / name, bin_dir=None, system_dir=scratch / "system"))
        uids = {cluster.pgdata.stat().st_uid for cluster in clusters}
        assert len(uids) == 2
        assert not uids & {0, NOBODY}
        assert all((cluster.place.home.stat().st_mode & 0o777) == 0o711 for cluster in clusters)
        assert not list((scratch / "one").glob("postgres/cluster*"))

    async def test_binaries_in_a_closed_folder_are_copied_once(scratch: Path) -> None:
        closed = scratch / "closed"
        closed.mkdir(mode=0o700)
        prefix = next(find_binaries()).bin_dir.parent
        for part in parts_of(prefix):
            shutil.copytree(part, closed / part.relative_to(prefix.parents[1]), symlinks=True)
        bin_dir = closed / prefix.relative_to(prefix.parents[1]) / "bin"
        cluster = prepare(scratch, str(bin_dir))
        assert cluster.binaries.bin_dir.is_relative_to(cluster.place.home)
        copied_at = cluster.binaries.bin_dir.stat().st_mtime_ns
        assert prepare(scratch, str(bin_dir)).binaries.bin_dir.stat().st_mtime_ns == copied_at
        async with serving_cluster(cluster) as server:
            psycopg.connect(server.conninfo()).close()

    async def test_a_cluster_that_belongs_to_somebody_else_is_refused(scratch: Path) -> None:
        cluster = prepare(scratch)
        os.chown(cluster.pgdata, 12_345, 12_345)
        with pytest.raises(PlaceRefused, match="another user"):
            prepare(scratch)

    async def test_a_folder_that_a_plain_user_may_not_write_is_refused(scratch: Path) -> None:
        data_dir = scratch / "data"
        (data_dir / "postgres").mkdir(mode=0o700, parents=True)
        os.chown(data_dir, NOBODY, NOBODY)
        node = await run_node(scratch, NOBODY)
        assert await node.say("error") == PlaceRefused.code
        await node.process.wait()
        assert list((data_dir / "postgres").iterdir()) == []

    async def test_a_user_s_cluster_started_by_root_keeps_its_user(scratch: Path) -> None:
        node = await run_node(scratch, NOBODY)
        await node.say("ready")
        last = await node.say("row")
        last = max(last, await node.kill())
        (scratch / "data").chmod(0o711)
        node = await run_node(scratch, None)
        assert await node.say("rows") >= last
        await node.say("ready")
        assert pgdata_of(scratch).stat().st_uid == NOBODY
        await node.end()
