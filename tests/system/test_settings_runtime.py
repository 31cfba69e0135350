"""What operators set at run time, and what they take back, over kills and restarts of a real node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.node.harness import mag
from tests.system.settings_node import UNWATCHED, WATCHED, Operator, node_with, say, started, variables

from magmobo.admin.errors import NodeRefused
from magmobo.testing.node import NodeProcess

pytestmark = pytest.mark.usefixtures("_without_database")
KEY, OTHER = "moody.note", "health.failures"


@contextmanager
def killed(node: NodeProcess) -> Iterator[None]:
    """Nothing is left running behind the block, whatever the test did."""
    try:
        yield
    finally:
        if node.process.returncode is None:
            node.process.kill()


def command(data_dir: Path, *words: str) -> str:
    """What somebody at the command line reads."""
    done = mag(*words, cwd=data_dir.parent, **variables("Moody"))
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout


async def test_a_patch_ends_by_itself_and_an_override_stays(data_dir: Path) -> None:
    say(data_dir, UNWATCHED)
    operator = Operator(data_dir)
    node = await started(data_dir, "Moody")
    with killed(node):
        await operator.ask("config:set", key=KEY, value="for good")
        await operator.ask("config:set", key=KEY, value="for a moment", ttl_s=0.2)
        await operator.ask("config:set", key=OTHER, value="7", ttl_s=3600)
        told = [await operator.next_event() for _ in range(4)]
        (ended,) = [event for event in told if event["trigger"] == "expiry"]
        assert ended["changed_keys"] == [KEY]
        assert await operator.value(KEY) == "for good"
        (record,) = await operator.until_record("config.patch_expired")
        assert record["payload"] == {"keys": [KEY]}
        before = await operator.entry(OTHER)
        assert (before["value"], before["layer"]) == (7, "patch")
        await node.kill()
    async with node_with(data_dir, "Moody"):
        kept = await operator.entry(KEY)
        assert (kept["value"], kept["layer"]) == ("for good", "override")
        assert await operator.entry(OTHER) == before, "with the same end"
        await operator.ask("config:unset", key=KEY)
        assert await operator.value(KEY) == ""
        assert len(await operator.records("config.patch_expired")) == 1


@pytest.mark.parametrize("ttl_s", [0.5, 3.0])
async def test_a_patch_ends_on_record_also_when_the_node_was_away(data_dir: Path, ttl_s: float) -> None:
    """The shorter one ends while the node is down, the longer one mostly behind its start; each is said once."""
    say(data_dir, UNWATCHED)
    operator = Operator(data_dir)
    node = await started(data_dir, "Moody")
    with killed(node):
        await operator.ask("config:set", key=KEY, value="for a moment", ttl_s=ttl_s)
        ends_s = time.time() + ttl_s
        await node.kill()
    if ttl_s < 1:
        await asyncio.sleep(max(0.0, ends_s - time.time()))  # until it has ended; nobody is waited for
    for _ in range(2):
        async with node_with(data_dir, "Moody"):
            await operator.until_value(KEY, "")
            (record,) = await operator.until_record("config.patch_expired")
            assert record["payload"] == {"keys": [KEY]}
            assert (await operator.entry(KEY))["layer"] == "default"


async def test_a_rollback_is_soon_holds_over_a_kill_and_ends_when_the_files_change(data_dir: Path) -> None:
    settings = f'{WATCHED}[moody]\nnote = "{{}}"\n'
    say(data_dir, settings.format("first"))
    operator = Operator(data_dir)
    node = await started(data_dir, "Moody")
    with killed(node):
        say(data_dir, settings.format("second"))
        await operator.until_value(KEY, "second")
        began_s = time.monotonic()
        text = await asyncio.to_thread(command, data_dir, "config:rollback", "--yes")
        print(f"\nmag config:rollback: {time.monotonic() - began_s:.3f} s with Python's start; it said: {text}")
        assert '"second" -> "first"' in text
        assert await operator.value(KEY) == "first"
        await node.kill()
    async with node_with(data_dir, "Moody"):
        tree = await operator.ask("config:show", prefix=KEY)
        assert (tree["entries"][0]["value"], tree["held"]) == ("first", True)
        notices = (await operator.ask("kernel:status"))["notices"]
        assert any("taken back to those of version" in notice for notice in notices), notices
        say(data_dir, settings.format("second"))  # the same again: nothing new, also to the watcher
        assert (await operator.ask("config:reload"))["applied"] is False
        say(data_dir, settings.format("third"))
        await operator.until_value(KEY, "third")
        assert (await operator.ask("config:show", prefix=KEY))["held"] is False


async def test_a_rollback_that_met_changed_files_while_the_node_was_away_is_over(data_dir: Path) -> None:
    settings = f'{UNWATCHED}[moody]\nnote = "{{}}"\n'
    say(data_dir, settings.format("first"))
    operator = Operator(data_dir)
    node = await started(data_dir, "Moody")
    with killed(node):
        with pytest.raises(NodeRefused):  # there is nothing yet to go back to
            await operator.ask("config:rollback")
        say(data_dir, settings.format("second"))
        await operator.ask("config:reload")
        await operator.ask("config:rollback")
        await node.kill()
    say(data_dir, settings.format("third"))
    async with node_with(data_dir, "Moody"):
        tree = await operator.ask("config:show", prefix=KEY)
        assert (tree["entries"][0]["value"], tree["held"]) == ("third", False)
        newest, *older = (await operator.ask("config:history"))["versions"]
        assert newest["running"]
        assert [one["version"] for one in older] == sorted((one["version"] for one in older), reverse=True)
