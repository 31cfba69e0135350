"""The way of a new author, as typed: `extension:new`, an edit, `extension:test`, `:pack`, `:sign`, `:trust`, `:install`
with `--enable`, and the first event that the extension handled, on a node that runs already. Ten commands, each a
process of its own; the yardstick is Python started as often.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Figure, Sample, compared, interleaved, median_of
from magmobo.testing.node import disposable_system_dir, start_node

NAME, KEY = "first-steps", "author.key"
LIMIT_S, COMMANDS = 20.0, 10
BARE = f"python -c pass, {COMMANDS} times"


def run(rounds: int) -> list[Figure]:
    """Seconds from nothing to an event that was handled."""
    samples = interleaved(min(rounds, 5), {"author": _author, BARE: _bare})
    slowest_s = max(sample["way_s"] for sample in samples["author"])
    verdict = "met by every round" if slowest_s <= LIMIT_S else "NOT met by every round"
    note = f"the goal is {LIMIT_S:g} s, {verdict}: median {median_of(samples['author'], 'way_s'):.2f} s."
    return [
        compared(samples, "author", BARE, "way_s", "a new author's way to an event handled", "s", "lower", note=note)
    ]


def _author() -> Sample:
    with tempfile.TemporaryDirectory(prefix="mag-bench-") as name, disposable_system_dir():
        folder = Path(name)
        folder.chmod(0o755)
        with asyncio.Runner() as runner:
            node = runner.run(start_node(folder / "mag_data"))
            try:
                began_s = time.perf_counter()
                _go_the_way(folder)
                return {"way_s": time.perf_counter() - began_s}
            finally:
                runner.run(node.stop())


def _go_the_way(folder: Path) -> None:
    there = ("--data-dir", "mag_data")
    _mag(folder, "extension:new", NAME)
    code = folder / NAME / "extension.py"
    code.write_text(code.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    _mag(folder, "extension:test", NAME)
    _mag(folder, "extension:pack", NAME)
    _mag(folder, "extension:keygen", KEY)
    package = next(path.name for path in folder.iterdir() if path.suffix == ".magx")
    _mag(folder, "extension:sign", package, "--key", KEY)
    _mag(folder, "extension:trust", "--add", f"{KEY}.pub", "--yes", *there)
    _mag(folder, "extension:install", package, "--approve", "--enable", "--yes", *there)
    _mag(folder, "config:set", "magds.pool_size", "9", "--yes", *there)
    while '"setting"' not in _mag(folder, "extension:run", NAME, "report", "--json", *there):
        pass


def _mag(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "magmobo.cli.main", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60).stdout


def _bare() -> Sample:
    began_s = time.perf_counter()
    for _ in range(COMMANDS):
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    return {"way_s": time.perf_counter() - began_s}
