"""The author's guide builds one extension; here it is put together, and its tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.unit.extensions.sdk.test_example_extensions import run_tests

from magmobo.contracts.extensions import EXTENSION_CAPABILITIES
from magmobo.contracts.hooks import HOOK_POINTS, HookSpec, Phase
from magmobo.extensions.package.build import pack
from magx.fakes import CAPABILITY_OF

GUIDE = (Path(__file__).parents[4] / "docs" / "extensions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
USABLE = [spec for spec in HOOK_POINTS.values() if not spec.planned]


def test_its_extension_is_valid_and_its_tests_pass(tmp_path: Path) -> None:
    for language, path, text in BLOCKS:
        assert path or language == "console", f"a block of {language} that runs nowhere"
        if path:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            with (tmp_path / path).open("a", encoding="utf-8") as file:
                file.write(text + "\n")
    pack(tmp_path)
    ran = run_tests(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "7 passed" in ran.stdout


@pytest.mark.parametrize("spec", USABLE, ids=lambda spec: spec.name)
def test_its_table_of_hook_points_says_what_the_node_says(spec: HookSpec) -> None:
    (row,) = re.findall(rf"^\| `{re.escape(spec.name)}` \|.*$", GUIDE, re.MULTILINE)
    _, _, _, mutable, fails, capability, _ = (cell.strip() for cell in row.split("|"))
    assert mutable == ", ".join(f"`{name}`" for name in spec.mutable)
    assert fails == ("" if spec.phase is Phase.AFTER else {"deny": "denied", "skip": "skipped"}[spec.on_error])
    assert capability == f"`{spec.capability}`"


def test_it_names_no_hook_point_and_no_capability_that_there_is_not() -> None:
    known = {*EXTENSION_CAPABILITIES, *HOOK_POINTS, *CAPABILITY_OF}
    named = re.findall(r"`((?:database|api|realtime|system|network|filesystem|auth)\.[a-z_]+)`", GUIDE)
    assert set(named) - known == {"database.change"}


def test_every_function_of_the_node_is_in_its_table() -> None:
    for method in CAPABILITY_OF:
        part, _, name = method.partition(".")
        rows = [row for row in GUIDE.splitlines() if row.startswith(f"| `ext.{part}") and f".{name}" in row]
        assert rows or method == "config.get", method
