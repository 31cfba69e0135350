"""What the audit log says of a package that comes: which extension, whose, from which version to which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.extensions.lifecycle_parts import ADMIN, EMIT, READ, TABLES, Node, execute, node_at, package
from tests.unit.extensions.package.making import PAIR

from magmobo.contracts.errors import AuditUnavailable
from magmobo.extensions.lifecycle.errors import AlreadyInstalled, ExtensionUnknown
from magmobo.extensions.package.errors import RequirementsUnmet

TRACE = "a" * 32


@pytest.fixture
def database(dsn: str) -> str:
    execute(dsn, TABLES)
    return dsn


async def of_packages(node: Node) -> list[Any]:
    found = await node.audit.read(after_seq=0, limit=10_000)
    return [one for one in found if one.payload.get("phase") == "package"]


async def test_a_package_is_on_record_with_all_that_names_it(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await node.trusted()
        data = package(tmp_path / "made", capabilities=[EMIT])
        detail = await node.lifecycle.install(data, ADMIN, trace_id=TRACE)
        [record] = await of_packages(node)
        assert (record.action, record.actor, record.trace_id) == ("extension.install", ADMIN.name, TRACE)
        assert record.payload == {
            "command": "extension:install", "phase": "package", "extension": "demo", "version": "1.0.0",
            "signer": PAIR.key_id, "sha256": detail.sha256, "tier": "S3",
        }  # fmt: skip


async def test_an_upgrade_names_the_version_before_also_when_it_waits(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "made", capabilities=[EMIT]))
        await node.lifecycle.upgrade(package(tmp_path / "made", "1.1.0", capabilities=[EMIT]), ADMIN)
        waits = package(tmp_path / "made", "2.0.0", capabilities=[EMIT, READ])
        detail = await node.lifecycle.upgrade(waits, ADMIN)
        assert detail.info.pending_version == "2.0.0"
        said = [(one.action, one.payload["version"], one.payload.get("previous")) for one in await of_packages(node)]
        assert said == [
            ("extension.install", "1.0.0", None),
            ("extension.upgrade", "1.1.0", "1.0.0"),
            ("extension.upgrade", "2.0.0", "1.1.0"),
        ]
        assert {one.payload["command"] for one in await of_packages(node)} == {"extension:install", "extension:upgrade"}


async def test_what_is_only_looked_at_or_refused_brings_no_package(database: str, tmp_path: Path) -> None:
    async with node_at(database, tmp_path) as node:
        await node.trusted()
        data = package(tmp_path / "made", capabilities=[EMIT])
        await node.lifecycle.install(data, ADMIN, dry_run=True)
        await node.lifecycle.install(data, ADMIN)
        with pytest.raises(AlreadyInstalled):
            await node.lifecycle.install(data, ADMIN)
        await node.lifecycle.upgrade(package(tmp_path / "made", "1.1.0", capabilities=[EMIT]), ADMIN, dry_run=True)
        with pytest.raises(RequirementsUnmet):
            await node.lifecycle.install(
                package(tmp_path / "made", id="other", requires={"magmobo": ">=99.0.0"}), ADMIN
            )
        assert len(await of_packages(node)) == 1


async def test_what_cannot_be_recorded_does_not_come(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_at(database, tmp_path) as node:
        await (await node.trusted()).enabled(package(tmp_path / "made", capabilities=[EMIT]))

        async def full(*_: Any, **__: Any) -> None:
            raise AuditUnavailable("the disk is full")

        monkeypatch.setattr(node.audit, "record", full)
        with pytest.raises(AuditUnavailable):
            await node.lifecycle.upgrade(package(tmp_path / "made", "1.1.0", capabilities=[EMIT]), ADMIN)
        assert (await node.lifecycle.show("demo")).info.version == node.worker().installed.version == "1.0.0"
        with pytest.raises(AuditUnavailable):
            await node.lifecycle.install(package(tmp_path / "made", id="other"), ADMIN)
        with pytest.raises(ExtensionUnknown):
            await node.lifecycle.show("other")
