"""How a real node hears of other settings: files that are swapped or gone, signals, its service manager, a reset."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.node.test_notify import manager
from tests.system.settings_node import UNWATCHED, WATCHED, Operator, node_with, say, started

from magmobo.admin.errors import NodeRefused
from magmobo.testing.node import NodeFailed, NodeProcess

pytestmark = pytest.mark.usefixtures("_without_database")
KEY = "gate.greeting"
GATE = '[gate]\ngreeting = "{}"\n'


def mount(folder: Path, number: int, **files: str) -> None:
    """Files as Kubernetes mounts a ConfigMap or a Secret: links to links, of which the inner one is swapped."""
    generation = folder / f"..{number}"
    generation.mkdir(parents=True)
    for name, text in files.items():
        (generation / name).write_text(text, encoding="utf-8")
        (generation / name).chmod(0o600)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(generation.name)
    fresh.replace(folder / "..data")


async def test_files_whose_links_are_swapped_are_taken(data_dir: Path) -> None:
    volume, secret = data_dir.parent / "volume", data_dir.parent / "secret"
    mount(volume, 1, settings=WATCHED)
    mount(secret, 1, greeting="one", password="first")
    (data_dir.parent / "mag.toml").symlink_to(volume / "settings")
    operator = Operator(data_dir)
    files = {"MAG_GATE__GREETING_FILE": str(secret / "greeting"), "MAG_GATE__PASSWORD_FILE": str(secret / "password")}
    async with node_with(data_dir, "Gate", **files):
        assert await operator.value(KEY) == "one"
        mount(secret, 2, greeting="two", password="second")
        event = await operator.next_event()
        assert (event["trigger"], event["changed_keys"]) == ("file", ["gate.greeting", "gate.password"])
        assert (await operator.entry(KEY))["layer"] == "environment"
        mount(secret, 3, greeting="three", password="weak")
        event = await operator.next_event()
        assert (event["event"], "the password is weak" in event["error"]) == ("reload_failed", True)
        assert await operator.value(KEY) == "two"
        mount(volume, 2, settings=WATCHED + "[health]\nfailures = 7\n")
        event = await operator.next_event()
        assert event["event"] == "reload_failed", "the weak password is still there"
        mount(secret, 4, greeting="four", password="third")
        event = await operator.next_event()
        assert event["changed_keys"] == ["gate.greeting", "gate.password", "health.failures"]


async def test_credentials_that_are_rotated_are_taken(data_dir: Path) -> None:
    credentials = data_dir.parent / "credentials"
    mount(credentials, 1, **{"magmobo.gate.greeting": "one"})
    say(data_dir, WATCHED)
    operator = Operator(data_dir)
    async with node_with(data_dir, "Gate", CREDENTIALS_DIRECTORY=str(credentials)):
        entry = await operator.entry(KEY)
        assert (entry["value"], entry["layer"]) == ("one", "credentials")
        mount(credentials, 2, **{"magmobo.gate.greeting": "two"})
        await operator.until_value(KEY, "two")
        mount(credentials, 3, **{"magmobo.gate.greeting": "three", "magmobo.health.failures": "9"})
        await operator.until_value(KEY, "three")
        assert await operator.value("health.failures") == 9


@pytest.mark.parametrize("cut", [True, False])
async def test_a_start_refuses_files_that_are_gone_or_cut_off_until_that_is_meant(data_dir: Path, cut: bool) -> None:
    say(data_dir, UNWATCHED + "[health]\nfailures = 7\n" + GATE.format("hi"))
    more = data_dir.parent / "mag.d" / "more.toml"
    more.parent.mkdir()
    more.write_text("[recovery]\nrestarts = 2\n", encoding="utf-8")
    operator = Operator(data_dir)
    async with node_with(data_dir, "Gate"):
        assert await operator.value("recovery.restarts") == 2
    if cut:
        say(data_dir, UNWATCHED + "[health]\nfailures = 7\n")
    else:
        more.unlink()
    with pytest.raises(NodeFailed) as refused:
        await started(data_dir, "Gate")
    assert "exit 5" in str(refused.value)
    assert "--accept-removed" in str(refused.value)
    assert ("mag.toml: ends after line 4 of 6" if cut else "more.toml: counted until now and is gone") in str(
        refused.value
    )
    for arguments in (("--accept-removed",), ()):  # once is enough
        node = await started(data_dir, "Gate", arguments=arguments)
        try:
            assert (await operator.value(KEY) == "hello") == cut
            assert (await operator.value("recovery.restarts") == 3) == (not cut)
            assert await node.stop() == 0
        finally:
            await node.kill()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[socket.socket]:
    with manager(str(tmp_path / "notify")) as door:
        yield door


async def heard(door: socket.socket, *until: str) -> list[str]:
    """What the service manager hears, up to and with lines in a row that begin with these."""
    news: list[str] = []
    while len(news) < len(until) or not all(map(str.startswith, news[-len(until) :], until)):
        news.append((await asyncio.to_thread(door.recv, 4096)).decode())
    return news


async def test_a_signal_reloads_between_reloading_and_ready(data_dir: Path, door: socket.socket) -> None:
    say(data_dir, UNWATCHED + GATE.format("one"))
    operator = Operator(data_dir)
    async with node_with(data_dir, "Gate", NOTIFY_SOCKET=str(door.getsockname())) as node:
        await heard(door, "READY=1")
        say(data_dir, UNWATCHED + GATE.format("two"))
        node.process.send_signal(signal.SIGHUP)
        first, *_ = await heard(door, "RELOADING=1", "READY=1")
        assert "\nMONOTONIC_USEC=" in first
        assert await operator.value(KEY) == "two", "it counts when the manager hears that it is ready"
        event = await operator.next_event()
        assert (event["trigger"], event["changed_keys"]) == ("signal", [KEY])
        say(data_dir, UNWATCHED + "[gate]\ngreting = 1\n")
        node.process.send_signal(signal.SIGHUP)
        _, status, _ = await heard(door, "RELOADING=1", "STATUS=the settings were not reloaded: ", "READY=1")
        assert "did you mean" in status
        assert await operator.value(KEY) == "two"
        say(data_dir, UNWATCHED + GATE.format("three"))
        node.process.send_signal(signal.SIGHUP)
        _, status, _ = await heard(door, "RELOADING=1", "STATUS=serving, the settings were reloaded", "READY=1")
        assert await operator.value(KEY) == "three"


async def held(data_dir: Path) -> None:
    async with asyncio.timeout(20):
        while not (data_dir / "held").exists():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ask", ["command", "signal", "file", "patch"])
async def test_a_reload_during_a_reset_is_refused_or_counts_behind_it(data_dir: Path, ask: str) -> None:
    files = WATCHED if ask == "file" else UNWATCHED
    say(data_dir, files + GATE.format("one"))
    operator = Operator(data_dir)
    async with node_with(data_dir, "Gate") as node:
        assert await operator.value(KEY) == "one"
        (data_dir / "hold").touch()
        reset = asyncio.create_task(operator.ask("kernel:reset"))
        await held(data_dir)
        say(data_dir, files + GATE.format("two"))
        await asked(ask, operator, node)
        assert await operator.value(KEY) == "one", "components boot with what counted"
        (data_dir / "hold").unlink()
        assert (await reset)["state"] == "ready"
        if ask in ("file", "signal"):
            await operator.until_value(KEY, "two")
        else:
            assert await operator.value(KEY) == "one"
            await operator.ask("config:reload")
            assert await operator.value(KEY) == "two"


async def asked(ask: str, operator: Operator, node: NodeProcess) -> None:
    """Ask for other settings; who can be told is told that it is not the time."""
    if ask == "signal":
        node.process.send_signal(signal.SIGHUP)
    if ask in ("signal", "file"):
        event = await operator.next_event()
        assert (event["event"], event["trigger"]) == ("reload_failed", ask)
        return
    name, params = ("config:reload", {}) if ask == "command" else ("config:set", {"key": KEY, "value": "patched"})
    with pytest.raises(NodeRefused) as refused:
        await operator.ask(name, **params)
    assert "not ready" in refused.value.text
