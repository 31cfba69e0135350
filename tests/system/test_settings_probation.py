"""Settings with which a third-party component fails are taken back by a real node, by itself and once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.system.settings_node import UNWATCHED, WATCHED, Operator, node_with, say

pytestmark = pytest.mark.usefixtures("_without_database")
HEALTH = "[health]\ninterval_s = 0.05\n[recovery]\nbackoff_s = 0.01\n"
GOOD = f"{WATCHED}{HEALTH}"


@pytest.mark.parametrize("key", ["live", "anew"])
@pytest.mark.parametrize(
    ("mode", "reason"), [("sick", "became unhealthy"), ("broken", "the work cannot be done like this")]
)
async def test_harmful_settings_are_taken_back_once_and_said_why(
    data_dir: Path, key: str, mode: str, reason: str
) -> None:
    say(data_dir, GOOD)
    bad = f'{GOOD}[moody]\n{key} = "{mode}"\n'
    operator = Operator(data_dir)
    async with node_with(data_dir, "Moody"):
        say(data_dir, bad)
        changed, back = await operator.next_event(), await operator.next_event()
        assert (changed["event"], changed["trigger"]) == ("reloaded", "file")
        assert (back["event"], back["trigger"]) == ("reloaded", "probation")
        assert changed["changed_keys"] == back["changed_keys"] == [f"moody.{key}"]
        assert await operator.value(f"moody.{key}") == "well"
        (record,) = await operator.until_record("config.rolled_back")
        assert (record["payload"]["version"], record["payload"]["to"]) == (2, 1)
        assert 'component "moody"' in record["payload"]["reason"]
        assert reason in record["payload"]["reason"]
        (line,) = operator.logged("changed settings are taken back")
        assert line["reason"] == record["payload"]["reason"]
        newest, *_ = (await operator.ask("config:history"))["versions"]
        assert (newest["trigger"], newest["note"]) == ("probation", f"version 2 taken back: {line['reason']}")
        # What the files say is not tried again until they say something else.
        assert (await operator.ask("config:show"))["held"] is True
        say(data_dir, bad)
        assert (await operator.ask("config:reload"))["applied"] is False
        say(data_dir, f'{GOOD}[moody]\nnote = "another"\n')
        mended = await operator.next_event()
        assert (mended["trigger"], mended["changed_keys"], mended["version"]) == ("file", ["moody.note"], 4)
        assert (await operator.ask("config:show"))["held"] is False


async def test_what_was_taken_back_stays_so_over_a_restart_until_the_files_change(data_dir: Path) -> None:
    settings = f'{UNWATCHED}{HEALTH}[moody]\nlive = "{{}}"\n'
    say(data_dir, settings.format("well"))
    operator = Operator(data_dir)
    async with node_with(data_dir, "Moody"):
        say(data_dir, settings.format("broken"))
        assert (await operator.ask("config:reload"))["applied"] is True
        await operator.until_record("config.rolled_back")
    operator = Operator(data_dir)
    async with node_with(data_dir, "Moody"):
        tree = await operator.ask("config:show", prefix="moody.live")
        assert (tree["held"], tree["entries"][0]["value"]) == (True, "well")
        assert (await operator.ask("config:reload"))["applied"] is False
        say(data_dir, settings.format("broken") + 'note = "another"\n')
        outcome = await operator.ask("config:reload")
        assert [change["key"] for change in outcome["plan"]["changes"]] == ["moody.live", "moody.note"]
        records = await operator.until_record("config.rolled_back", 2)
        assert [record["payload"]["to"] for record in records] == [1, records[0]["payload"]["version"] + 1]
        assert await operator.value("moody.note") == ""


async def test_a_patch_that_does_harm_is_taken_back_too(data_dir: Path) -> None:
    say(data_dir, GOOD)
    operator = Operator(data_dir)
    async with node_with(data_dir, "Moody"):
        await operator.ask("config:set", key="moody.live", value="sick", ttl_s=600)
        (record,) = await operator.until_record("config.rolled_back")
        assert "became unhealthy" in record["payload"]["reason"]
        tree = await operator.ask("config:show", prefix="moody.live")
        assert (tree["held"], tree["entries"][0]["value"], tree["entries"][0]["layer"]) == (False, "well", "default")
