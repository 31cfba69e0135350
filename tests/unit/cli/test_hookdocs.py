"""The map of hook points on the page is the one of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from magmobo.cli import hookdocs
from magmobo.contracts.hooks import HOOK_POINTS

PAGE = Path(__file__).parents[3] / "docs" / "architecture.md"


def test_the_page_is_as_the_code_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == hookdocs.written(page), f"run `{hookdocs.HOW}`"


def test_every_hook_point_has_a_row_with_its_adapter_and_component() -> None:
    rows = [line.split(" | ") for line in hookdocs.table_lines()][2:]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in HOOK_POINTS]
    assert all(row[2] == f"`extensions/adapters/{row[3]}.py`" for row in rows)


def test_a_page_without_a_place_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="no <!--"):
        hookdocs.written("# A page\n")
