"""An extension whose events wait for a budget of the day, on two whole nodes: seen on each, ended from each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tests.system.extension_shell import Shell, until
from tests.unit.extensions.package.making import PAIR, signed

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.cli.context import ask
from magmobo.cli.extension_admit import bring
from magmobo.contracts.commands import Command
from magmobo.contracts.extensions import (
    ApproveExtension,
    DeadLetters,
    EnableExtension,
    ExtensionDetail,
    ExtensionEvents,
    GrantCapability,
    InstallExtension,
    RevokeCapability,
    RunExtensionCommand,
    RunResult,
    ShowExtension,
    TrustedKeys,
    TrustKeys,
    WaitInfo,
)
from magmobo.contracts.operations import AuditPage, AuditTail
from magmobo.extensions.events.waits import MOST_S
from magmobo.extensions.package.keys import public_text
from magmobo.testing.node import NodeProcess, running_node

T = TypeVar("T")
NAME, PUBLISH = "hearer", "api.emit_events"
WAIT_S = 20.0
"""Well below what a wait for a budget took before it was looked at again."""
CODE = """
from magx import ApiError, Extension, RateLimited

ext = Extension()

@ext.on("asked")
async def asked(event):
    number = event.data["payload"]["number"]
    try:
        await ext.events.publish("answered", {"number": number})
    except RateLimited:
        raise
    except ApiError as error:
        await ext.kv.put(f"without/{number:03}", error.code)
    else:
        await ext.kv.put(f"with/{number:03}", "")

@ext.command("heard")
async def heard(arguments):
    return {name: len(await ext.kv.list(f"{name}/")) for name in ("with", "without")}
"""
ASKER = """
from magx import Extension

ext = Extension()

@ext.command("ask")
async def ask(arguments):
    for number in range(arguments["first"], arguments["first"] + arguments["times"]):
        await ext.events.publish("asked", {"number": number})
"""


class Operator:
    """Orders to one node, and `mag` as a person sees it."""

    def __init__(self, folder: Path, node: NodeProcess) -> None:
        self.client, self.shell = AdminClient(DataFolder(node.data_dir), timeout_s=30.0), Shell(folder, node)

    async def ask(self, command: Command, reply: type[T]) -> T:
        return await asyncio.to_thread(ask, self.client, command, reply)

    async def show(self) -> ExtensionDetail:
        return await self.ask(ShowExtension(id=NAME), ExtensionDetail)

    async def grant(self, budget: int) -> None:
        await self.ask(GrantCapability(id=NAME, wanted=PUBLISH, budget_per_day=budget), ExtensionDetail)

    async def emit(self, first: int, times: int) -> None:
        arguments = {"first": first, "times": times}
        await self.ask(RunExtensionCommand(id="asker", command="ask", arguments=arguments), RunResult)

    async def admit(self, data: bytes) -> None:
        digest = await asyncio.to_thread(bring, self.client, data)
        detail = await self.ask(InstallExtension(sha256=digest), ExtensionDetail)
        await self.ask(ApproveExtension(id=detail.info.id), ExtensionDetail)
        await self.ask(EnableExtension(id=detail.info.id), ExtensionDetail)

    async def comes_to(self, told: int, without: int) -> None:
        """Once it told of so many events, and took so many without being let to."""

        async def look() -> bool:
            answer = await self.ask(RunExtensionCommand(id=NAME, command="heard"), RunResult)
            return bool(answer.result == {"with": told, "without": without})

        assert WAIT_S < MOST_S
        await until(look, wait_s=WAIT_S)

    async def hears_of(self, calls: int) -> None:
        """Once it knows that so many were made, which is all of the budget; each node tells of its own every second."""

        async def look() -> bool:
            return [(one.spent_today, one.limited) for one in (await self.show()).limits] == [(calls, "budget")]

        await until(look, wait_s=WAIT_S)

    async def wait(self, behind: int) -> WaitInfo:
        """The one wait, as `extension:show` and `extension:events` tell it, once so many are behind it."""

        async def look() -> WaitInfo | None:
            return next((one for one in (await self.show()).waits if one.behind == behind), None)

        found = await until(look, wait_s=WAIT_S)
        assert (await self.ask(ExtensionEvents(id=NAME), DeadLetters)).waits == [found]
        return found


def packages(place: Path) -> tuple[bytes, bytes]:
    """Who asks, and who hears it and tells of it."""
    asks = [{"name": PUBLISH, "reason": "tells"}]
    asker = signed(
        place / "asker", {"extension.py": ASKER}, id="asker", capabilities=asks,
        commands=[{"name": "ask", "summary": "Asks."}],
    )  # fmt: skip
    hearer = signed(
        place / NAME, {"extension.py": CODE}, id=NAME, capabilities=asks,
        events=[{"name": "asked", "topic": "extension.published", "where": {"data.extension_id": "asker"}}],
        requires={"extensions": {"asker": ">=1.0.0"}}, commands=[{"name": "heard", "summary": "What it heard."}],
    )  # fmt: skip
    return asker, hearer


@asynccontextmanager
async def two_nodes(dsn: str, place: Path) -> AsyncIterator[tuple[Operator, Operator]]:
    """With both extensions."""
    environment = {"DATABASE_URL": dsn}
    async with (
        running_node(place / "one", environment=environment) as first,
        running_node(place / "two", environment=environment) as second,
    ):
        one, two = Operator(place, first), Operator(place, second)
        await one.ask(TrustKeys(public=public_text(PAIR.public), label="the author"), TrustedKeys)
        for data in packages(place):
            await one.admit(data)
        yield one, two


async def test_a_wait_is_seen_on_each_node_and_ended_from_each(dsn: str, tmp_path: Path) -> None:
    async with two_nodes(dsn, tmp_path) as (one, two):
        await one.grant(2)
        await one.emit(0, 10)
        await one.comes_to(2, 0)
        found = await one.wait(8)
        assert await two.wait(8) == found
        assert (found.handler, found.capabilities, found.kind) == ("event:asked", [PUBLISH], "budget")
        ends = datetime.fromisoformat(found.until)
        assert (ends.hour, ends.minute, ends.second) == (0, 0, 0)
        await two.hears_of(2)
        text, told = await asyncio.gather(
            two.shell.mag("extension:show", NAME), two.shell.mag("extension:events", NAME)
        )
        assert f"{PUBLISH}  2 of 2 calls of today on all nodes" in text
        assert "8 events behind it" in text
        assert f"extension:grant {NAME} {PUBLISH} --budget N` lets it go on at once" in text
        assert f"event:asked until {found.until}: the budget of {PUBLISH} is used up; 8 events" in told
        assert "every event was taken" not in told

        await two.grant(5)
        await one.comes_to(5, 0)
        await two.wait(5)
        await one.grant(7)
        await two.comes_to(7, 0)
        await one.wait(3)
        await two.hears_of(7)

        await two.ask(RevokeCapability(id=NAME, wanted=PUBLISH), ExtensionDetail)
        await one.comes_to(7, 3)
        async with asyncio.timeout(WAIT_S):
            while (await one.show()).waits:
                await asyncio.sleep(0.05)

        await one.grant(7)
        await one.emit(10, 2)
        await two.wait(2)
        # All that it asks for, which is no budget.
        await two.ask(ApproveExtension(id=NAME, capabilities=[PUBLISH]), ExtensionDetail)
        await one.comes_to(9, 3)
        page = await one.ask(AuditTail(action="extension.install", extension=NAME), AuditPage)
        assert [record.payload["phase"] for record in page.records] == ["package", "outcome"]
        said = page.records[0].payload
        assert (said["version"], said["signer"], said["tier"]) == ("1.0.0", PAIR.key_id, (await one.show()).info.tier)
        assert said["sha256"] == (await one.show()).sha256, "it is no secret to be masked"
