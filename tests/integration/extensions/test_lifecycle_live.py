"""The lifecycle with real processes, hooks and gate: what clients of a hook see while versions change."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from tests.integration.extensions.lifecycle_parts import ADMIN, node_at, package
from tests.integration.extensions.mediation import HEAD, Mediation, mediation, until

from magmobo.contracts.hooks import RequestContext

POINT = "api.before_request"
CODE = "@ext.hook('api.before_request')\nasync def mark(ctx):\n    return {'query': '%s'}\n"
HOOKED: dict[str, Any] = {
    "capabilities": [{"name": "api.intercept_request", "reason": "marks requests"}],
    "hooks": [{"point": POINT}],
}


def version(place: Path, number: int) -> bytes:
    text = f"1.{number}.0"
    return package(place, text, files={"extension.py": HEAD + CODE % text}, **HOOKED)


def request() -> RequestContext:
    return RequestContext(
        request_id="1", method="GET", path="/rest/v1/orders", query="", table="orders", role="web", anonymous=False,
        claims="{}", headers={}, body="", body_bytes=0,
    )  # fmt: skip


class Client:
    """Asks the hook point again and again; `seen` are the versions that answered, an empty one where none did."""

    def __init__(self, plane: Mediation) -> None:
        self._point = plane.board.point(POINT)
        self.seen: list[str] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            chain = self._point.chain
            assert chain is not None
            self.seen.append((await chain.before(request())).query)
            await asyncio.sleep(0)

    async def more(self, count: int = 20) -> None:
        """Until it has asked so many times more."""
        target = len(self.seen) + count
        await until(lambda: len(self.seen) >= target or self._task.done())

    async def end(self) -> list[str]:
        """Every version in the order of the answers. Raises what a call raised."""
        done = self._task.done()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if done:
            self._task.result()
        return self.seen


def changes_of(seen: list[str]) -> list[str]:
    """Each version where another one began to answer."""
    return [one for before, one in zip(["", *seen], seen, strict=False) if one != before]


async def test_no_call_is_lost_and_none_goes_back_while_versions_change(dsn: str, tmp_path: Path) -> None:
    async with mediation(tmp_path / "plane") as plane, node_at(dsn, tmp_path / "node", live=plane) as node:
        plane.be_patient()
        await (await node.trusted()).enabled(version(tmp_path / "p", 0))
        client = Client(plane)
        for number in range(1, 5):
            await client.more()
            await node.lifecycle.upgrade(version(tmp_path / "p", number), ADMIN)
        await client.more()
        await node.lifecycle.rollback("demo", ADMIN)
        await client.more()
        seen = await client.end()
        assert changes_of(seen) == ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.3.0"]
        assert "" not in seen, "there was always one to answer"


async def test_a_worker_that_is_killed_comes_back_and_no_client_sees_an_error(dsn: str, tmp_path: Path) -> None:
    async with mediation(tmp_path / "plane") as plane, node_at(dsn, tmp_path / "node", live=plane) as node:
        plane.be_patient()
        await (await node.trusted()).enabled(version(tmp_path / "p", 0))
        client = Client(plane)
        for _ in range(2):
            await client.more()
            os.kill(plane.processes[-1].pid, signal.SIGKILL)
            count = len(client.seen)
            await until(lambda: "1.0.0" in client.seen[count + 20 :])  # noqa: B023
        assert node.topics().count("extension.error") == 2
        assert await node.state() == "enabled"
        await client.end()


async def test_one_that_is_killed_again_and_again_is_stopped(dsn: str, tmp_path: Path) -> None:
    async with mediation(tmp_path / "plane") as plane, node_at(dsn, tmp_path / "node", live=plane) as node:
        plane.be_patient()
        await (await node.trusted()).enabled(version(tmp_path / "p", 0))
        killed: set[int] = set()

        def kill_again() -> bool:
            pid = plane.processes[-1].pid
            if pid not in killed and len(killed) < 5:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            return node.lifecycle.worker("demo") is None

        await until(kill_again)
        await until(lambda: not node.lifecycle._watching._acting)
        assert await node.state() == "disabled"
        assert plane.board.point(POINT).chain is None, "its hook does not fail closed, so it is out of the way"


async def test_a_revoked_hook_is_asked_no_more(dsn: str, tmp_path: Path) -> None:
    async with mediation(tmp_path / "plane") as plane, node_at(dsn, tmp_path / "node", live=plane) as node:
        plane.be_patient()
        await (await node.trusted()).enabled(version(tmp_path / "p", 0))
        chain = plane.board.point(POINT).chain
        assert chain is not None
        assert (await chain.before(request())).query == "1.0.0"
        await node.lifecycle.revoke("demo", "api.intercept_request", ADMIN)
        assert (await chain.before(request())).query == ""
