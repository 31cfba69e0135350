"""What an idle worker costs: the memory that it shares with nobody, as a plain user and as root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.hostile.extensions import profiles
from tests.hostile.extensions.sandbox_plays import IS_ROOT

MOST_BYTES = 4_000_000
PLAY_S = 60


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter and write to."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("profile", ["user", "root"] if IS_ROOT else ["user"])
def test_an_idle_worker_has_less_than_4_mb_of_its_own(profile: str, open_folder: Path) -> None:
    """Also when others were forked after it: what the zygote then writes to, it shared with those before."""
    script = Path(__file__).with_name("idle_workers.py")
    done = subprocess.run(
        [sys.executable, profiles.__file__, profile, str(script), str(open_folder)],
        env={"PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=PLAY_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)

    assert said["tier"] == "S3"
    assert all(0 < size_bytes <= MOST_BYTES for size_bytes in said["after_call"] + said["in_the_end"]), said
