"""The release gate: each of the 40 cases of the hostile list on a real node: as root, as a user, in containers of both.

One node a mode serves all its cases. Each case must be contained, be on record, and leave the node's loop alone. That
the attacks of the system cases succeed without the sandbox is shown by `test_sandbox_*`, layer by layer.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES = range(1, 41)
LATE_MS = 50.0
"""How late the node's loop may be while a case runs."""
MODES = {"root": "S3", "unprivileged": "S3", "container": "S2", "container-root": "S2"}
"""Mode -> the tier that it gives."""
LEAKS = {
    ("container", 6): {"look_at_metadata"},
    ("container-root", 6): {"look_at_metadata"},
    ("container-root", 20): {"nameless_files"},
}
"""What a tier does not stop: in S2 there is no minimal root, and Landlock does not hide that a file is there. Root in a
container may not look at the open files of a worker, which has another uid.
"""
ESCAPES, DENIALS = (8, 21, 22, 23, 37), (15, 31, 38, 40)
RECORDS = {
    **dict.fromkeys(range(1, 41), "extension.calls"), **dict.fromkeys(ESCAPES, "extension.escape_attempt"),
    **dict.fromkeys(DENIALS, "extension.denied"), **dict.fromkeys((25, 26, 27, 30), "extension.install"),
    **dict.fromkeys((28, 29), "extension.upgrade"),
}  # fmt: skip
"""The record that a case must leave, whatever else it leaves."""
RUN_S = 240.0


def modes() -> list[str]:
    """Root is one only for who is root."""
    return [mode for mode in MODES if not mode.endswith("root") or os.geteuid() == 0]


def play(mode: str, folder: Path) -> dict[str, Any]:
    """Run the whole list; the answer of each case by its number."""
    folder.chmod(0o755)
    if os.geteuid() == 0 and not mode.endswith("root"):
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.hostile.extensions.gate_run", mode, str(folder)],
        cwd=ROOT, capture_output=True, timeout=RUN_S, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith(b"{")]
    assert lines, ran.stderr.decode()[-2000:]
    assert lines[-1] == {"done": True}, ran.stderr.decode()[-2000:]
    return {"tier": lines[0]["tier"], **{str(line["case"]): line for line in lines[1:-1]}}


@pytest.fixture(scope="module", params=modes())
def played(request: pytest.FixtureRequest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Mode, and what came of its node."""
    folder = Path(tempfile.mkdtemp(prefix="mag-gate-"))
    try:
        yield request.param, play(request.param, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_machine_gives_the_tier_that_the_mode_should_have(played: tuple[str, Mapping[str, Any]]) -> None:
    mode, results = played
    assert results["tier"] == MODES[mode]
    assert {int(case) for case in results if case != "tier"} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_case_is_contained_on_record_and_noticed_by_nobody(
    played: tuple[str, Mapping[str, Any]], case: int
) -> None:
    mode, results = played
    result = results[str(case)]
    assert not result["error"], result["error"]
    expected = LEAKS.get((mode, case), set())
    assert {leak.partition(":")[0] for leak in result["leaked"]} == expected, result["leaked"]
    assert result["stopped"], f"nothing was tried: {result['absent']}"
    recorded = {record.partition(" ")[0] for record in result["recorded"]}
    assert RECORDS[case] in recorded, f"on record are only {recorded}"
    assert not result["wanting"], f"not on record: {result['wanting']}"
    assert result["late_ms"] < LATE_MS, f"the loop was {result['late_ms']} ms late ({result['raw_ms']} ms by the clock)"
