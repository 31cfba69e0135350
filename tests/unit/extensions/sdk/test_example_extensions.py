"""The examples and the scaffold are valid, and their own tests pass, run as an author runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from magmobo.extensions.package.build import pack
from magmobo.extensions.package.format import read_unverified
from magmobo.extensions.package.scaffold import scaffold

EXAMPLES = Path(__file__).parents[4] / "examples" / "extensions"
NAMES = ["delay-alerts", "migration-guard", "slow-query-log", "webhook-sender"]


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider",
         "-p", "no:magx", "-p", "magx.pytest_plugin", "-p", "no:asyncio"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def check(folder: Path) -> None:
    package = read_unverified(pack(folder))
    assert package.manifest.id == json.loads((folder / "manifest.json").read_text())["id"]
    assert not any(path.startswith("tests/") for path in package.files)
    ran = run_tests(folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_and_its_tests_pass(name: str) -> None:
    check(EXAMPLES / name)


def test_a_new_extension_is_valid_and_its_tests_pass(tmp_path: Path) -> None:
    scaffold(tmp_path / "new", "my-first")
    check(tmp_path / "new")


def test_every_example_has_a_readme_and_is_tested_here() -> None:
    found = {path.parent.name for path in EXAMPLES.glob("*/manifest.json")}
    assert set(NAMES) <= found
    assert all((EXAMPLES / name / "README.md").is_file() for name in NAMES)
