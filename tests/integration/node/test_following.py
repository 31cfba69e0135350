"""What the process around the kernel does when its settings change: log, token, vault, a reset in between."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cli.test_node_commands import background
from tests.integration.cli.test_real_settings import entry, store
from tests.integration.node.harness import answer, mag
from tests.integration.node.test_process import until

BASE = "[kernel]\nwatch_interval_s = 0.05\n\n[steady]\ngreeting = 'hello'\n"


def write(folder: Path, more: str) -> None:
    fresh = folder / "fresh"
    fresh.write_text(BASE + more)
    fresh.rename(folder / "mag.toml")


def version(folder: Path) -> int:
    return int(answer("config:show", "steady", cwd=folder)["version"])


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "mag_data" / "logs" / "mag.jsonl").read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "")
    return tmp_path


def test_the_level_of_the_log_follows_also_for_loggers_that_were_made_before(folder: Path) -> None:
    with background(folder):
        assert not [line for line in lines(folder) if line["level"] == "debug"]
        write(folder, "[logging]\nlevel = 'debug'\n")
        until(lambda: entry(folder, "logging.level")["value"] == "debug")
        (folder / "mag.toml").unlink()  # refused, which is said at level debug by a logger made at the start
        until(lambda: any(line["level"] == "debug" for line in lines(folder)))
        write(folder, "[logging]\nlevel = 'error'\n")
        until(lambda: entry(folder, "logging.level")["value"] == "error")
        count = len(lines(folder))
        assert mag("component:restart", "steady", cwd=folder).returncode == 0
        assert len(lines(folder)) == count


def test_a_local_vault_is_encrypted_anew_when_its_key_changes(folder: Path) -> None:
    (folder / "pass").write_text("the first phrase\n")
    with background(folder):
        assert store(folder, "db", "kept secret").returncode == 0
        before = (folder / "mag_data" / "vault" / "vault.mag").read_bytes()
        write(folder, "[vault]\npassphrase = 'file:pass'\n")
        until(lambda: (folder / "mag_data" / "vault" / "vault.mag").read_bytes() != before)
        until(lambda: "passphrase" in answer("vault:list", cwd=folder)["key_source"])
        assert mag("vault:rotate", "db", "--version", "1", cwd=folder).returncode == 0
        assert "vault.rekey" in mag("audit:tail", cwd=folder).stdout
    with background(folder):
        assert [use["info"]["version"] for use in answer("vault:list", cwd=folder)["secrets"]] == [2]
        assert mag("vault:rotate", "db", "--version", "1", cwd=folder).returncode == 0, "it can be read"
    (folder / "pass").write_text("another phrase\n")
    refused = mag("vault:rotate", "db", "--version", "1", cwd=folder)
    assert (refused.returncode, "MAG-VAULT" in refused.stderr) == (1, True)


def test_an_edit_during_a_reset_counts_when_the_node_has_come_back(folder: Path) -> None:
    with background(folder):
        for number in range(3):
            write(folder, f"[health]\ninterval_s = {20 + number}\n")
            assert mag("kernel:reset", "--yes", cwd=folder).returncode == 0
            until(lambda number=number: entry(folder, "health.interval_s")["value"] == 20 + number)


def test_another_admin_token_counts_at_once(folder: Path) -> None:
    digest = sha256(b"another token").hexdigest()
    with background(folder):
        former = version(folder)
        write(folder, f"[admin]\ntoken_sha256 = '{digest}'\n")
        until(lambda: version(folder) == former + 1)
        shown = entry(folder, "admin.token_sha256")
        assert (shown["value"], shown["layer"], shown["effect"]) == ("***", "file", "live")


def test_who_set_a_waiting_key_is_who_set_what_counts(folder: Path) -> None:
    with background(folder):
        write(folder, "[cache]\nredis_timeout_s = 9\n")
        until(lambda: entry(folder, "cache.redis_timeout_s")["waiting"])
        shown = entry(folder, "cache.redis_timeout_s")
        assert (shown["value"], shown["origin"], shown["layer"]) == (0.25, "default", "default")
        assert "cache.redis_timeout_s" in mag("status", cwd=folder).stdout


def test_a_mounted_secret_that_is_swapped_counts_without_a_word(folder: Path) -> None:
    """As Kubernetes does it: the folder that a link leads to is another one, and nothing else has changed."""
    secret, data = folder / "token", folder / "..data"
    secret.symlink_to("..data/token")

    def mount(number: int, hashed: str | None) -> None:
        (folder / f"..{number}").mkdir()
        if hashed is not None:
            (folder / f"..{number}" / "token").write_text(hashed + "\n")
        (folder / "..next").symlink_to(f"..{number}")
        (folder / "..next").rename(data)

    mount(1, sha256(b"one").hexdigest())
    write(folder, "[admin]\ntoken_sha256 = 'file:token'\n")
    with background(folder):
        before = version(folder)
        mount(2, sha256(b"two").hexdigest())
        until(lambda: version(folder) == before + 1)
        mount(3, None)
        until(lambda: any("cannot be followed" in note for note in answer("status", cwd=folder)["notices"]))
        assert version(folder) == before + 1
        mount(4, sha256(b"four").hexdigest())
        until(lambda: version(folder) == before + 2)
