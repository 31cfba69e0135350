"""The sandbox's attacks and the release gate as things are: `scripts/container-gate.sh` runs this in a real container.

`python -m tests.hostile.extensions.container_gate` prints, as JSON, the tier that was found, what a better one lacks
and what got out. Exit status 1: more got out than docs/sandbox.md says of this tier, or something could not be tried.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RUN_S = 300
LEAKS = {"S3": set[str](), "S2": {"look_at_metadata", "nameless_files"}}
"""Tier -> what docs/sandbox.md says still gets out of it, as a user or as root."""


def attacks() -> Mapping[str, Any]:
    """What `scenario.py` says of every attack."""
    asked = json.dumps({"attacks": [], "layers": None, "without": [], "watched": True})
    environment = os.environ | {"MAG_HOSTILE_SECRET": secrets.token_hex(16)}
    ran = subprocess.run(
        [sys.executable, str(HERE / "scenario.py"), asked],
        env=environment, stdout=subprocess.PIPE, timeout=RUN_S, check=True,
    )  # fmt: skip
    said: Mapping[str, Any] = json.loads(ran.stdout)
    return said


def cases() -> Sequence[Mapping[str, Any]]:
    """What `gate_run.py` says of every case."""
    with tempfile.TemporaryDirectory(prefix="mag-gate-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        ran = subprocess.run(
            [sys.executable, "-m", "tests.hostile.extensions.gate_run", "as-it-is", folder],
            cwd=HERE.parents[2], stdout=subprocess.PIPE, timeout=RUN_S, check=True,
        )  # fmt: skip
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith(b"{")]
    return [line for line in lines if "case" in line]


def main() -> int:
    """Try all, and print what came of it."""
    played, gate = attacks(), cases()
    results: Mapping[str, Mapping[str, str]] = played["results"]
    out = {name for name, one in results.items() if one["outcome"] == "leaked"}
    out |= {leak.partition(":")[0] for one in gate for leak in one["leaked"]}
    failed = {name: one["how"] for name, one in results.items() if one["outcome"] in ("broken", "failed")}
    failed |= {f"case {one['case']}": said for one in gate if (said := one["error"] or "; ".join(one["wanting"]))}
    report = {
        "tier": played["tier"], "layers": played["layers"], "lacks": played["missing"], "attacks": len(results),
        "cases": len(gate), "out": sorted(out), "failed": failed,
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    return 1 if failed or out - LEAKS.get(played["tier"], set()) else 0


if __name__ == "__main__":
    sys.exit(main())
