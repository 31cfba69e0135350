"""`component:register` runs code: who may, and that the order is on disk before a line of it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.component import Component
from magmobo.contracts.errors import AuditUnavailable, MagError
from magmobo.kernel.choice import Newcomer
from magmobo.kernel.kernel import Kernel
from magmobo.kernel.security.errors import CapabilityDenied
from magmobo.testing.harness import make_config

SOURCE = b'{"source": "somebodys.package:Class"}'
BELOW = [role for role in Role if role is not Role.ADMIN]


class Somebodys(Component):
    name = "somebodys"


class Node:
    """A kernel whose finder of components notes that it was asked, and what the log held then."""

    def __init__(self, folder: Path) -> None:
        self.imported: list[int] = []
        self.kernel = Kernel(
            components=(), config=make_config(), data_dir=folder, environment="test", instance_id="node", version="0",
            resolve=self.resolve,
        )  # fmt: skip

    def resolve(self, source: str) -> Newcomer:
        self.imported.append(self.kernel.services.audit.head_seq)
        return Newcomer(Somebodys, source)

    async def register(self, actor: Actor) -> bytes:
        return await self.kernel.services.commands.run("component:register", SOURCE, actor=actor)


def person(role: Role, justification: str = "") -> Actor:
    return Actor(name="uid:1", role=role, via="control", justification=justification)


async def test_the_order_is_recorded_before_anything_is_imported(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.kernel.boot()
    await node.register(person(Role.ADMIN))
    records = await node.kernel.services.audit.read(after_seq=0, limit=100)
    (intent, outcome) = (record for record in records if record.action == "component.register")
    assert node.imported == [intent.seq]
    assert intent.payload["params"] == {"source": "somebodys.package:Class"}
    assert outcome.payload["result"] == "ok"
    await node.kernel.shutdown()


async def test_without_a_record_nothing_is_imported(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.kernel.boot()
    await node.kernel.services.audit.close()
    for actor in (person(Role.ADMIN), person(Role.VIEWER, "the building burns")):
        with pytest.raises(AuditUnavailable):
            await node.register(actor)
    assert node.imported == []
    await node.kernel.shutdown()


@pytest.mark.parametrize("role", BELOW)
async def test_less_than_an_admin_imports_nothing(tmp_path: Path, role: Role) -> None:
    node = Node(tmp_path)
    await node.kernel.boot()
    component = Actor(name="component:x", role=Role.ADMIN, via="component", justification="I must")
    for actor in (person(role), component):
        with pytest.raises(CapabilityDenied):
            await node.register(actor)
    for name in ("kernel.boot", "os:system"):
        with pytest.raises(MagError):
            await node.kernel.services.commands.run(name, SOURCE, actor=person(role))
    assert node.imported == []
    await node.kernel.shutdown()
