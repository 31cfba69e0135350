"""The page for authors of components: its blocks are files, and they do what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from tests.integration.node.harness import ROOT

from magmobo.components.magds.component import MagDS
from magmobo.testing.harness import running_kernel
from magmobo.testing.postgres import PostgresServer

_BLOCK = re.compile(r"^```\w+ ([\w.]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file of the page."""
    for name, text in _BLOCK.findall((ROOT / "docs" / "kernel-guide.md").read_text(encoding="utf-8")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_example_passes_its_own_tests(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--rootdir", "."],
        cwd=package, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


async def test_a_component_gets_the_one_it_needs(package: Path, postgres: PostgresServer) -> None:
    rows = import_module("rows").Rows
    async with running_kernel(MagDS, rows, config={"magds": {"dsn": postgres.dsn()}}) as kernel:
        assert {one.name: one.state for one in kernel.status().components} == {"magds": "running", "rows": "running"}


def test_the_entry_point_names_the_class(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [(name, target)] = project["entry-points"]["magmobo.components"].items()
    module, _, attribute = target.partition(":")
    assert getattr(import_module(module), attribute).name == name


def test_forty_lines_are_about_forty(package: Path) -> None:
    code = [line for line in (package / "tally.py").read_text().split("class Tally(Component)")[1].splitlines() if line]
    assert len(code) <= 40
