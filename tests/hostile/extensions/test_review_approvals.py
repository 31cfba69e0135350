"""What an admin looked at is what is approved, whatever was staged meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.extensions.lifecycle_parts import (
    ADMIN,
    EMIT,
    READ,
    TABLES,
    execute,
    node_at,
    package,
    traces,
)

from magmobo.extensions.lifecycle.errors import AnotherWaits

READ_MORE = READ | {"tables": ["public.orders", "public.prices"]}
WRITE = {"name": "database.write", "reason": "writes", "tables": ["public.orders", "public.prices"]}


async def test_another_upgrade_than_the_one_looked_at_is_not_approved(dsn: str, tmp_path: Path) -> None:
    execute(dsn, TABLES)
    first = package(tmp_path / "a", capabilities=[EMIT, READ])
    harmless = package(tmp_path / "a", "1.1.0", capabilities=[EMIT, READ_MORE])
    greedy = package(tmp_path / "a", "1.2.0", capabilities=[EMIT, READ_MORE, WRITE])
    async with node_at(dsn, tmp_path) as node:
        await (await node.trusted()).enabled(first)
        await node.lifecycle.upgrade(harmless, ADMIN)
        looked_at = await node.lifecycle.approve("demo", (), "demo", ADMIN, dry_run=True)
        await node.lifecycle.upgrade(greedy, ADMIN)
        with pytest.raises(AnotherWaits):
            await node.lifecycle.approve("demo", (), "demo", ADMIN, sha256=looked_at.pending_sha256)
        now = await node.lifecycle.show("demo")
        assert (now.info.version, now.info.pending_version) == ("1.0.0", "1.2.0")
        assert traces(dsn, tmp_path)["rights"] == [("orders", "SELECT")]
        detail = await node.lifecycle.approve("demo", (), "demo", ADMIN, sha256=now.pending_sha256)
        assert (detail.info.version, detail.sha256, detail.pending_sha256) == ("1.2.0", now.pending_sha256, "")


async def test_another_package_of_that_name_is_not_approved(dsn: str, tmp_path: Path) -> None:
    execute(dsn, TABLES)
    async with node_at(dsn, tmp_path) as node:
        await node.trusted()
        await node.lifecycle.install(package(tmp_path / "a", capabilities=[READ]), ADMIN)
        looked_at = await node.lifecycle.approve("demo", (), "demo", ADMIN, dry_run=True)
        await node.lifecycle.uninstall("demo", True, ADMIN)
        await node.lifecycle.install(package(tmp_path / "a", capabilities=[READ, WRITE]), ADMIN)
        with pytest.raises(AnotherWaits):
            await node.lifecycle.approve("demo", (), "demo", ADMIN, sha256=looked_at.sha256)
        assert {one.state for one in (await node.lifecycle.show("demo")).grants} == {"pending"}
