"""docs/architecture.md is a code map; it must name every module that exists and none that does not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def modules() -> set[str]:
    """Every module of the two packages as the page writes it: a path below src/."""
    paths = (path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*.py"))
    return {path.as_posix() for path in paths if path.name != "__init__.py"}


def test_the_page_names_every_module() -> None:
    missing = sorted(path for path in modules() if f"`{path}`" not in PAGE)
    assert not missing, f"docs/architecture.md does not mention {missing}"


def test_every_path_on_the_page_exists() -> None:
    named = set(re.findall(r"`((?:magmobo|magx)/[\w/.-]+|(?:clients|benchmarks|scripts|tests|docs)/[\w/.-]+)`", PAGE))
    gone = sorted(path for path in named if not ((ROOT / "src" / path).exists() or (ROOT / path).exists()))
    assert named, "the page names no path at all"
    assert not gone, f"docs/architecture.md names what does not exist: {gone}"
