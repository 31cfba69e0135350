"""A scope that was left out means everything, one that is empty means nothing, and neither becomes the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import Raw
from tests.integration.extensions.mediation import Mediation, installed, mediation
from tests.unit.extensions.package.making import asked, manifest

from magmobo.contracts.extensions import GrantCapability
from magmobo.contracts.hooks import BroadcastContext
from magmobo.extensions.events.access import Viewer
from magmobo.extensions.events.log import Logged
from magmobo.extensions.hooks.router import HookRouter
from magmobo.extensions.installed import Grant, Installed, Question
from magmobo.extensions.lifecycle import grants
from magmobo.extensions.package.upgrades import capability_diff
from magx import wire

HEARS = "realtime.subscribe_events"
HEARS_HOOK = "realtime.before_broadcast"


def decided(read: Any, name: str, **less: Any) -> dict[str, Any]:
    wanted = GrantCapability(id="demo", wanted=name, **less)
    return {name: grants.granted_less(read.request(name), wanted, expires_at_s=None, by="admin")}


@pytest.mark.parametrize(
    ("name", "kind", "some"),
    [
        (HEARS, "channels", ["desk-*"]),
        ("realtime.register_channel", "channels", ["desk-*"]),
        ("auth.audit_access", "topics", ["auth.login.*"]),
        ("api.emit_events", "topics", ["orders.*"]),
    ],
)
def test_an_upgrade_that_no_longer_says_which_is_seen(name: str, kind: str, some: list[str]) -> None:
    narrow, wide = manifest(capabilities=[asked(name, **{kind: some})]), manifest(capabilities=[asked(name)])
    assert capability_diff(narrow, wide).more
    assert not capability_diff(wide, narrow).more
    before = {name: grants.granted(narrow.capabilities[0], "admin")}
    carried = grants.carried_decisions(narrow, before, wide)
    assert carried[name].state != "granted" or name in ("api.emit_events", "realtime.register_channel")
    kept = grants.carried_decisions(wide, {name: grants.granted(wide.capabilities[0], "admin")}, narrow)
    assert kept[name].scope[kind] == some


def test_narrowing_to_nothing_is_not_everything() -> None:
    one, other = "security.breakglass", "security.capability_denied"
    before = manifest(capabilities=[asked("auth.audit_access", topics=[one, other])])
    after = manifest(version="1.1.0", capabilities=[asked("auth.audit_access", topics=[other])])
    old = decided(before, "auth.audit_access", scope={"topics": [one]})
    assert seen_by(grants.effective(before, old, 0.0), one) == {}
    assert seen_by(grants.effective(before, old, 0.0), other) is None
    counts = grants.effective(after, grants.carried_decisions(before, old, after), 0.0)
    assert seen_by(counts, one) is None
    assert seen_by(counts, other) is None


def test_a_grant_for_no_channel_is_for_none() -> None:
    read = manifest(capabilities=[asked(HEARS)])
    counts = grants.effective(read, decided(read, HEARS, scope={"channels": []}), 0.0)
    assert counts[HEARS].scope["channels"] == ()
    assert seen_by(counts, "realtime.message.sent", channel="private-desk") is None
    every = grants.effective(read, decided(read, HEARS), 0.0)
    assert seen_by(every, "realtime.message.sent", channel="private-desk") == {"channel": "private-desk"}


def seen_by(counts: Any, topic: str, **data: Any) -> Any:
    read = manifest(capabilities=[asked(HEARS), asked("auth.audit_access")], events=[{"name": "heard", "topic": topic}])
    extension = Installed("demo", "1.0.0", "0" * 64, read, Path("/nowhere"), "tests", grants=counts)
    viewer = Viewer(extension, read.events[0], lambda one, capability: capability in one.grants)
    return viewer.see(Logged(1, "id", topic, "", 0, 0.0, b""), data)


class Player:
    """A worker that changes what it is asked about."""

    lives = 1

    def __init__(self, extension: Installed) -> None:
        self.installed, self.asked = extension, 0

    async def ask(self, question: Question) -> Raw:
        self.asked += 1
        return wire.raw({"data": "changed"})

    async def around(self, question: Question, proceed: Any) -> Raw:
        raise AssertionError


async def test_hooks_hear_of_granted_channels_alone(tmp_path: Path) -> None:
    async with mediation(tmp_path) as plane:
        player, chain = with_channels(plane, tmp_path, ("desk-*",))
        other = await chain.before(message("private-payroll"))
        assert (other.data, player.asked) == ("secret", 0)
        assert (await chain.before(message("desk-1"))).data == "changed"
        player.installed.grants = {HEARS: Grant(capability=HEARS, scope={"channels": ()}, rate_per_minute=1)}
        assert (await chain.before(message("desk-1"))).data == "secret"


def with_channels(plane: Mediation, folder: Path, channels: tuple[str, ...]) -> tuple[Player, Any]:
    extension = installed(folder, "demo", "", hooks=[{"point": HEARS_HOOK}])
    extension.grants = {HEARS: Grant(capability=HEARS, scope={"channels": channels}, rate_per_minute=1)}
    player = Player(extension)
    HookRouter(plane.board, plane.gatekeeper, structlog.stdlib.get_logger()).attach(player)
    return player, plane.board.point(HEARS_HOOK).chain


def message(channel: str) -> BroadcastContext:
    return BroadcastContext(app="a", channel=channel, event="e", data="secret", origin="api")
