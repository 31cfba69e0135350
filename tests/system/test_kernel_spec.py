"""The page of the kernel's promises: its blocks run, and the states it names are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tests.integration.node.harness import ROOT

PAGE = ROOT / "docs" / "kernel-spec.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:40])
def test_a_block_runs(block: str) -> None:
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
