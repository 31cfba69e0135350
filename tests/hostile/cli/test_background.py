"""`mag up --background` from a folder that somebody else filled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MAG = Path(sys.executable).with_name("mag")


def test_python_files_in_the_working_folder_are_never_run(tmp_path: Path) -> None:
    """An unpacked archive or /tmp may hold a file named like a module we import; root may start a node there."""
    planted = tmp_path / "ran"
    for name in ("uvloop", "structlog", "msgspec", "click", "psycopg", "magmobo", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(planted)!r}, 'a').write({name!r})\nraise SystemExit(9)\n")
    # a DSN that leads nowhere: the child has imported everything by then, and no database is needed
    answer = subprocess.run(
        [MAG, "up", f"host={tmp_path} dbname=none", "--background", "--data-dir", tmp_path / "data", "--port", "0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert not planted.exists(), planted.read_text()
    assert "MAG-DS-" in answer.stderr, answer.stderr
