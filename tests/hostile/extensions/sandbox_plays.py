"""Runs `scenario.py` as a process of its own, in one of the profiles, and gives what it said."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct, convert

HERE = Path(__file__).resolve().parent
PLAY_S = 100
IS_ROOT = os.geteuid() == 0


class Result(Struct, frozen=True):
    """How one attack went: `leaked`, `stopped`, `absent`, `broken`, or `failed` when there was no worker."""

    outcome: str
    how: str
    escape: str


class Played(Struct, frozen=True):
    """What a scenario said."""

    tier: str
    layers: Sequence[str]
    missing: str
    results: Mapping[str, Result]

    def those(self, *outcomes: str) -> set[str]:
        """Names of attacks that went so."""
        return {name for name, result in self.results.items() if result.outcome in outcomes}

    def told(self, names: set[str]) -> str:
        """How these went, for a message."""
        return "\n".join(f"{name}: {self.results[name].outcome} {self.results[name].how}" for name in sorted(names))


def play(
    profile: str,
    *,
    attacks: Sequence[str] = (),
    layers: Sequence[str] | None = None,
    without: Sequence[str] = (),
    watched: bool = True,
) -> Played:
    """Play a node of this profile (see `profiles.py`)."""
    request = {"attacks": list(attacks), "layers": layers, "without": list(without), "watched": watched}
    command = [sys.executable, str(HERE / "profiles.py"), profile, str(HERE / "scenario.py"), json.dumps(request)]
    environment = {"MAG_HOSTILE_SECRET": secrets.token_hex(16), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PLAY_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return convert(json.loads(done.stdout), Played)
