"""Pages written from code are as the code is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from magmobo.cli import configdocs, errordocs
from magmobo.cli.catalogue import error_classes
from magmobo.cli.group import COMMANDS
from magmobo.contracts.errors import MagError

DOCS = Path(__file__).parents[3] / "docs"


def test_no_two_errors_share_a_code() -> None:
    shared = [code for code, count in Counter(error.code for error in error_classes()).items() if count > 1]
    assert not shared, [f"{error.__module__}.{error.__name__}" for error in error_classes() if error.code in shared]


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.__name__)
def test_every_error_explains_itself(error: type[MagError]) -> None:
    own = vars(error)
    assert "code" in own, "a code of its own"
    assert own.get("__doc__"), "a docstring that says the cause"
    assert error.remedy, "a remedy that says the next step"
    area, _, number = error.code.removeprefix("MAG-").rpartition("-")
    assert error.code.startswith("MAG-")
    assert area.isupper()
    assert len(number) == 3
    assert number.isdigit()


def test_the_page_of_errors_is_as_the_classes_are() -> None:
    written = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert written == errordocs.error_page(), f"run `{errordocs.HOW}`"


def test_the_page_of_settings_is_as_the_sections_are() -> None:
    written = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert written == configdocs.configuration_page(), f"run `{configdocs.HOW}`"


def test_every_setting_says_what_it_means() -> None:
    sections = configdocs.all_sections()
    silent = [
        row.key
        for name, section in sections.items()
        for row in configdocs.settings_of(section, name)
        if not row.description
    ]
    assert not silent, "give each a Meta(description=…)"


def test_the_page_of_commands_names_every_command() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`mag {name}" not in page] == []
