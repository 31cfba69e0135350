"""The promise of the kept settings, under kill -9: what a call returned for is there, a version is there wholly or not
at all, and leftovers do not pile up.

A program of its own forks one writer after the other, kills each at a random moment, and lets the next one look at
everything that was acknowledged before it writes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from msgspec import json

KILLS = 300
PROGRAM = Path(__file__).with_name("versions_killer.py")
ROOT = Path(__file__).parents[2]


def test_three_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, PROGRAM, tmp_path, str(KILLS)]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.decode(done.stdout)
    assert result["kills"] == KILLS
    assert result["acknowledged"] > KILLS, "most writers lived long enough to write"
    assert result["killed_while_writing"] > KILLS / 2
