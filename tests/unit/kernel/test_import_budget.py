"""What starting a kernel may load. Imports are the boot time: whatever creeps in here is paid by every start and test.

A module that is needed later is imported by the function that needs it. To add to a list here, say in a comment what it
costs (`python -X importtime`) and why it cannot wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BOOT = """
import asyncio, sys
from pathlib import Path
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.loader import load_config
from magmobo.kernel.kernel import Kernel

async def boot():
    kernel = Kernel(components=(), config=load_config(CORE_SECTIONS, []), data_dir=Path(sys.argv[1]),
                    environment="test", instance_id="budget", version="0")
    await kernel.boot()
    loaded = sorted(sys.modules)
    await kernel.shutdown()
    return loaded

print(*asyncio.run(boot()))
"""
YARDSTICK = "import asyncio, msgspec, sys; print(*sorted(sys.modules))"

ALLOWED = {
    # 3 ms together: paths of the data folder
    "pathlib", "fnmatch", "ntpath", "urllib", "urllib.parse", "ipaddress",
    # 1.3 ms: hashes of the audit chain
    "hashlib", "_hashlib", "_blake2",
    # 0.2 ms: where a value falls among the buckets of a histogram
    "bisect", "_bisect",
    # 4 ms: the state store
    "sqlite3", "sqlite3.dbapi2", "_sqlite3", "queue", "_queue", "zlib",
    # 0.4 ms: the graph of components, the limit of open files
    "graphlib", "resource",
    # threads that write the state and the audit log
    "concurrent.futures.thread",
}  # fmt: skip
LATER = (
    "magmobo.admin", "magmobo.cli", "magmobo.components", "magmobo.console", "magmobo.node", "magmobo.testing",
    "magmobo.kernel.observe.logging", "magmobo.kernel.observe.writer", "magmobo.kernel.redact",
    # for who looks at a node or steers it
    "magmobo.contracts.operations", "magmobo.contracts.planes", "magmobo.kernel.commands", "magmobo.kernel.security",
    "magmobo.kernel.operations", "magmobo.kernel.inspection", "magmobo.kernel.figures", "magmobo.kernel.blame",
    "magmobo.kernel.diagnostics", "magmobo.kernel.graph", "magmobo.kernel.audit.reader",
    # for settings that somebody sets, refers to, or changes while the node runs
    "magmobo.kernel.config.validate", "magmobo.kernel.config.shapes", "magmobo.kernel.config.problems",
    "magmobo.kernel.config.errors", "magmobo.kernel.config.source", "magmobo.kernel.config.view",
    "magmobo.kernel.reloader", "magmobo.kernel.turnover", "magmobo.kernel.vault", "magmobo.kernel.spellings",
    # for the first component that wants it, or the hundredth record
    "magmobo.kernel.cache", "magmobo.kernel.audit.checkpoint",
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Modules that are there when a kernel without components is ready, beyond those of asyncio and msgspec."""
    folder = tmp_path_factory.mktemp("data")
    return run("-c", BOOT, str(folder)) - run("-c", YARDSTICK)


def run(*arguments: str) -> set[str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=kept, cwd=Path(__file__).parent
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_nothing_heavy_creeps_into_the_start(loaded: set[str]) -> None:
    strangers = {name for name in loaded if not name.startswith("magmobo")} - ALLOWED
    assert not strangers, f"start-up loads {sorted(strangers)}: import them in the function that needs them"


def test_what_a_start_does_not_need_of_ours_is_loaded_later(loaded: set[str]) -> None:
    early = sorted(name for name in loaded if name.startswith(LATER))
    assert not early, f"start-up loads {early}"
