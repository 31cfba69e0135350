"""A node whose settings of run time are wrong or lost: a start is refused, a safe one mends them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs
from tests.integration.cli.test_node_commands import background
from tests.integration.cli.test_real_settings import entry
from tests.integration.node.harness import answer, mag

from magmobo.kernel.config.checked import pack, unpack
from magmobo.kernel.config.source import Runtime, RuntimeSetting
from magmobo.kernel.config.versions import Kept

SET = {"health.interval_s": "7", "kernel.stop_timeout_s": "8", "logging.level": "debug"}


def change(folder: Path, changed: Callable[[Runtime], Runtime]) -> None:
    path = folder / "mag_data" / "config" / "runtime.json"
    kept = unpack(path.read_bytes(), Kept)
    path.write_bytes(pack(structs.replace(kept, runtime=changed(kept.runtime))))


def wrong(setting: RuntimeSetting) -> RuntimeSetting:
    """As after an upgrade that does not accept it any more."""
    return structs.replace(setting, value="no")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A node ran here, and these keys were set."""
    with background(tmp_path):
        for key, value in SET.items():
            assert mag("config:set", key, value, cwd=tmp_path).returncode == 0
    return tmp_path


def test_several_settings_that_are_refused_by_now_are_taken_back_one_after_the_other(folder: Path) -> None:
    bad = ("health.interval_s", "kernel.stop_timeout_s")
    change(folder, lambda runtime: Runtime({k: wrong(s) if k in bad else s for k, s in runtime.overrides.items()}))
    refused = mag("up", "--background", cwd=folder)
    assert (refused.returncode, "MAG-CONF-050" in refused.stderr) == (5, True)
    assert all(key in refused.stderr for key in bad)
    with background(folder, "--safe"):
        assert entry(folder, "logging.level")["value"] == "info"
        assert any(
            "logging.level" in notice and "--safe" in notice for notice in answer("status", cwd=folder)["notices"]
        )
        for key in bad:
            unset = mag("config:unset", key, cwd=folder)
            assert (unset.returncode, unset.stderr) == (0, "")
    with background(folder):
        assert entry(folder, "logging.level")["value"] == "debug"
        assert entry(folder, "health.interval_s")["layer"] == "default"


def test_a_safe_node_can_set_what_was_lost_anew(folder: Path) -> None:
    path = folder / "mag_data" / "config" / "runtime.json"
    path.write_text("{damaged")
    assert "MAG-CONF-041" in mag("up", "--background", cwd=folder).stderr
    with background(folder, "--safe"):
        assert path.read_text() == "{damaged"
        done = mag("config:set", "health.interval_s", "9", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        versions = [one["version"] for one in answer("config:history", cwd=folder)["versions"]]
        assert versions == sorted(set(versions), reverse=True)
        assert len(versions) == 1 + len(SET) + 2  # a start, what was set, a safe start, and this
    assert path.with_suffix(".json.damaged").read_text() == "{damaged"
    with background(folder):
        assert (entry(folder, "health.interval_s")["value"], entry(folder, "logging.level")["value"]) == (9.0, "info")


def test_a_wrong_override_is_refused_although_a_patch_counts_above_it(folder: Path) -> None:
    """Else the patch could not end, and no node start."""
    with background(folder):
        assert mag("config:set", "health.interval_s", "5", "--ttl", "10m", cwd=folder).returncode == 0
        refused = mag("config:set", "health.interval_s", "no", cwd=folder)
        assert (refused.returncode, "override by" in refused.stderr) == (5, True)
        assert entry(folder, "health.interval_s")["value"] == 5.0
    with background(folder):
        assert entry(folder, "health.interval_s")["layer"] == "patch"


def test_a_version_that_is_held_and_lost_has_two_ways_out(tmp_path: Path) -> None:
    def say(greeting: str) -> None:
        (tmp_path / "mag.toml").write_text(f"[kernel]\nwatch_files = false\n[steady]\ngreeting = '{greeting}'\n")

    say("first")
    with background(tmp_path):
        for greeting in ("second", "third"):
            say(greeting)
            assert mag("config:reload", cwd=tmp_path).returncode == 0
        assert mag("config:rollback", "1", cwd=tmp_path).returncode == 0
    (tmp_path / "mag_data" / "config" / "versions" / "00000001.sealed").write_bytes(b"damaged")
    refused = mag("up", "--background", cwd=tmp_path)
    assert refused.returncode == 5
    assert all(word in refused.stderr for word in ("version 1", "mag up --safe", "mag.toml"))
    with background(tmp_path, "--safe"):
        assert mag("config:rollback", "2", cwd=tmp_path).returncode == 0
    with background(tmp_path):
        assert entry(tmp_path, "steady.greeting")["value"] == "second"
    (tmp_path / "mag_data" / "config" / "versions" / "00000002.sealed").write_bytes(b"damaged")
    assert mag("up", "--background", cwd=tmp_path).returncode == 5
    say("fourth")
    with background(tmp_path):
        assert entry(tmp_path, "steady.greeting")["value"] == "fourth"
