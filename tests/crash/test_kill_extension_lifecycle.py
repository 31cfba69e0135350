"""The promise of the lifecycle under kill -9: behind every step of every change, a new node finds or makes the state
before it or the one after it; no role, schema, right, row or file is left over.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import json

from magmobo.testing.postgres import PostgresServer

PROGRAM = Path(__file__).with_name("lifecycle_killer.py")
ROOT = Path(__file__).parents[2]
LEAST_STEPS = {
    "install": 2, "enable": 5, "upgrade": 7, "approve": 7, "rollback": 6, "disable": 3, "kill": 2, "uninstall": 4,
    "uninstall and keep": 2,
}  # fmt: skip


@pytest.mark.parametrize("change", LEAST_STEPS)
def test_a_change_that_is_killed_is_whole_or_undone(postgres: PostgresServer, tmp_path: Path, change: str) -> None:
    command = [sys.executable, PROGRAM, postgres.socket_dir, tmp_path / "f", change]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environ)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    result = json.decode(done.stdout.splitlines()[-1])
    assert len(result["steps"]) >= LEAST_STEPS[change], result
    assert result["ways"][-1] == "after", result
