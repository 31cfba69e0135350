"""The promise of the vault, under kill -9: what a change returned for is there, nothing is half done, and the key that
is there opens it, also when it died while the vault was being encrypted under a new one.

A program of its own forks one writer after the other, kills each at a random moment, and lets the next one look at
everything that was acknowledged before it goes on. Forking saves the start of a Python a thousand times.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from msgspec import json

KILLS = 1_000
PROGRAM = Path(__file__).with_name("vault_killer.py")


def test_a_thousand_kills_lose_no_secret(tmp_path: Path) -> None:
    command = [sys.executable, PROGRAM, tmp_path, str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.decode(done.stdout)
    assert result["kills"] == KILLS
    assert result["acknowledged"] > KILLS, "most writers lived long enough to write"
    assert result["killed_while_writing"] > KILLS / 2
