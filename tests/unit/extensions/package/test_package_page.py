"""docs/extension-package.md names every limit and every refusal as the code has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from magmobo.contracts.extensions import MAX_PACKAGE_BYTES
from magmobo.extensions.package import (
    archive,
    build,
    errors,
    migrationfiles,
    paths,
    schemas,
    settings,
    shapes,
    validate,
)
from magmobo.extensions.package import versions as ranges
from magmobo.extensions.package.scopes import REQUIRED_SCOPES

PAGE = (Path(__file__).parents[4] / "docs" / "extension-package.md").read_text(encoding="utf-8")
LIMITS = PAGE.partition("## Limits")[2].partition("## The manifest")[0]


@pytest.mark.parametrize(
    ("row", "limits"),
    [
        ("the package", [MAX_PACKAGE_BYTES]),
        ("files in it", [archive.MAX_FILES, archive.MAX_FILE_BYTES, archive.MAX_UNPACKED_BYTES]),
        ("a file's compression", [archive.MAX_RATIO, archive.RATIO_FREE_BYTES]),
        ("a path", [paths.MAX_PATH_CHARS, paths.MAX_PATH_DEPTH]),
        ("`manifest.json`", [validate.MAX_MANIFEST_BYTES, shapes.MAX_DEPTH]),
        ("migrations", [migrationfiles.MAX_MIGRATIONS, migrationfiles.MAX_SQL_BYTES]),
        ("a version", [ranges.MAX_VERSION_CHARS]),
        ("a range of versions", [ranges.MAX_RANGE_CHARS]),
        ("the schema of settings", [schemas.MAX_PROPERTIES, schemas.MAX_DEPTH, schemas.MAX_CHOICES]),
        ("settings", [settings.MAX_SETTINGS_BYTES]),
    ],
)
def test_a_limit_is_as_the_page_says(row: str, limits: list[int]) -> None:
    (line,) = (line for line in LIMITS.splitlines() if line.startswith(f"| {row} |"))
    words = line.replace(",", " ").replace(";", " ").split()
    assert [limit for limit in limits if str(limit) not in words] == []


def test_every_refusal_is_on_the_page() -> None:
    codes = {
        one.code
        for one in vars(errors).values()
        if isinstance(one, type) and one.__module__ == errors.__name__ and hasattr(one, "code")
    }
    assert [code for code in sorted(codes) if f"| {code} |" not in PAGE] == []


def test_what_stays_at_home_and_what_needs_a_scope_is_on_the_page() -> None:
    named = [*build.LEFT_OUT, *build.LEFT_OUT_ENDINGS, *paths.COMPILED, *REQUIRED_SCOPES]
    assert [one for one in named if one not in PAGE] == []
    keywords = {keyword for of_type in schemas._OF_TYPE.values() for keyword in of_type} | set(schemas._OF_ALL)
    assert [one for one in sorted(keywords) if one not in PAGE] == []
