"""Tables of settings on a screen: as wide as it, where that can be, and the same cells in each."""

from __future__ import annotations

import pytest

from magmobo.cli.plans import table, tree_lines
from magmobo.contracts.configuration import ConfigEntry, ConfigTree
from magmobo.contracts.settings import Effect

WORDS = [f"key_{number}" for number in range(30)]


def tree(long: int) -> ConfigTree:
    """30 settings, of which so many have a long value and were set in a long place."""
    entries = [ConfigEntry(f"section.a_rather_{word}", number, "default", "default", Effect.NODE)
               for number, word in enumerate(WORDS)]  # fmt: skip
    path = "/etc/somewhere/far/down/below/all/others/mag.toml line 100"
    entries[:long] = [
        ConfigEntry(f"section.long_{number}", "x" * 40, path, "file", Effect.COMPONENT) for number in range(long)
    ]
    return ConfigTree(1, "test", entries)


@pytest.mark.parametrize("long", [1, 3])
def test_a_few_long_cells_make_no_other_line_longer_than_the_screen(long: int) -> None:
    wide, narrow = (list(tree_lines(tree(long), origin=True, width=width)) for width in (None, 80))
    assert min(len(line) for line in wide[2:]) > 80, "where nobody looks at a screen every column is as wide as it is"
    assert sum(len(line) > 80 for line in narrow) == long
    assert [line.split() for line in narrow] == [line.split() for line in wide]


def test_what_fits_is_not_made_narrower() -> None:
    rows = [["key", "v" * 40, "who"], ["other", "w", "me"]]
    assert table(rows, 80) == table(rows) == [f"  key    {'v' * 40}  who", f"  other  {'w':<40}  me"]


def test_a_screen_that_is_too_narrow_for_any_table_gets_the_narrowest() -> None:
    rows = [["key" * 9, "v" * 40, "who"], ["other", "w", "me"]]
    assert table(rows, 10) == [f"  {'key' * 9}  {'v' * 40}  who", f"  {'other':<27}  {'w':<12}  me"]
    assert table([], 10) == []
