"""docs/extension-sql.md lists what the guard knows, no more and no less."""

from __future__ import annotations

from pathlib import Path

from magmobo.extensions.sql import execution, guard, values, words

PAGE = (Path(__file__).parents[4] / "docs" / "extension-sql.md").read_text(encoding="utf-8")


def test_the_page_names_every_function() -> None:
    listed = set(PAGE.partition("```text\n")[2].partition("```")[0].split())
    assert listed == words.FUNCTIONS - {"all", "row"}


def test_the_page_names_the_limits() -> None:
    for limit in (execution.MAX_ROWS, guard.MAX_QUERY_CHARACTERS, values.MAX_PARAMETERS):
        assert f"{limit:,}" in PAGE
    assert f"{execution.MAX_BYTES // 1024} KiB" in PAGE
