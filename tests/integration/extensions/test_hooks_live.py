"""Hooks in real processes, through router and chain: what a host sees while workers are killed and exchanged."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.extensions.mediation import Mediation, installed, lines, mediation, until

from magmobo.contracts.errors import HookDenied
from magmobo.contracts.hooks import HealthContext, MigrationContext, QueryContext, RequestContext
from magmobo.extensions.workers.states import WorkerState
from magmobo.extensions.workers.worker import Worker

REQUEST = RequestContext(
    request_id="1", method="GET", path="/flights", query="select=*", table="public.flights", role="anon",
    anonymous=True, claims="{}", headers={"accept": "*/*"}, body="", body_bytes=0,
)  # fmt: skip
MIGRATION = MigrationContext(namespace="app", version="1", name="one", direction="up", sql="drop table a")
CODE = """
@ext.hook("api.before_request")
async def before(call):
    return {"query": call.data["query"] + "&limit=1"}

@ext.hook("database.before_migration")
def guard(call):
    if "drop" in call.data["sql"]:
        raise HookDenied("nothing is dropped here", 12.5)

@ext.hook("database.around_query")
async def around(call):
    await call.proceed()
    ext.log.info(call.data["sql_hash"])

@ext.hook("database.health_check")
async def health(call):
    return {"extension": {"status": "healthy", "detail": call.data["component"]}}

@ext.hook("api.after_request")
async def after(call):
    ext.log.info("told")
"""
POINTS = ("api.before_request", "database.before_migration", "database.around_query", "database.health_check")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Mediation]:
    async with mediation(tmp_path) as plane:
        yield plane


def extension(folder: Path, name: str = "one", code: str = CODE) -> Any:
    hooks = [{"point": point} for point in (*POINTS, "api.after_request")]
    grants = ("api.intercept_request", "database.admin", "system.metrics")
    return installed(folder, name, code, hooks=hooks, grants=grants)


async def restarted(worker: Worker) -> None:
    await until(lambda: worker.state is not WorkerState.READY)
    await until(lambda: worker.state is WorkerState.READY)


async def test_every_phase_through_a_real_worker(plane: Mediation, tmp_path: Path) -> None:
    plane.be_patient()
    await plane.running(extension(tmp_path))
    chains = [plane.board.point(point).chain for point in POINTS]
    before, guard, around, health = chains
    assert before is not None
    assert guard is not None
    assert around is not None
    assert health is not None
    async with asyncio.timeout(30):
        assert (await before.before(REQUEST)).query == "select=*&limit=1"
        with pytest.raises(HookDenied, match="one denied it: nothing is dropped here") as denied:
            await guard.before(MIGRATION)
        assert denied.value.retry_s == 12.5

        async def run() -> int:
            return 5

        query = QueryContext(sql="select 1", sql_hash="abc", role="anon", read_only=True)
        assert await around.around(query, run) == 5
        after = plane.board.point("api.after_request").chain
        assert after is not None
        after.after(REQUEST)
        await until(lambda: ("info", "told") in plane.logs)
        assert await health.gather(HealthContext(component="magds")) == {
            "one": {"extension": {"status": "healthy", "detail": "magds"}}
        }
    assert ("info", "abc") in plane.logs
    results = {(line["name"], line["result"]) for line in lines(await plane.records("extension.calls"))}
    assert ("database.before_migration", "denied") in results
    assert ("api.before_request", "ok") in results


async def test_no_request_fails_while_workers_are_killed_and_exchanged(plane: Mediation, tmp_path: Path) -> None:
    point = plane.board.point("api.before_request")
    worker = await plane.running(extension(tmp_path))
    served = changed = 0
    over = False

    async def requests() -> None:
        nonlocal served, changed
        while not over:
            assert point.chain is not None
            changed += (await point.chain.before(REQUEST)).query != REQUEST.query
            served += 1
            await asyncio.sleep(0)  # a hook that is left alone costs no turn of the loop

    asking = [asyncio.create_task(requests()) for _ in range(8)]
    for _ in range(3):
        os.kill(plane.processes[-1].pid, signal.SIGKILL)
        await restarted(worker)
        new = plane.worker(extension(tmp_path))
        await new.start()
        plane.router.swap(worker, new)
        await worker.drain(5.0)
        worker = new
    over = True
    async with asyncio.timeout(30):
        await asyncio.gather(*asking)
    assert served > changed > 0
    assert not plane.escapes
