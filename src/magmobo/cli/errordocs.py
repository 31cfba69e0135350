"""docs/errors.md, written from the error classes: `python -m magmobo.cli.errordocs docs/errors.md`."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from magmobo.cli.catalogue import cause_of, error_classes
from magmobo.contracts.errors import MagError

HOW = "python -m magmobo.cli.errordocs docs/errors.md"

_TITLE = f"""# Errors

Every error that MagMoBo raises on purpose, by its stable code; `mag explain CODE` prints the same. HTTP is the status
that a request is answered with, exit the exit code of `mag`.

<!-- Written from the classes by `{HOW}`. Edit the class, not this page. -->
"""


def error_page() -> str:
    """The whole page, Markdown."""
    parts = [_TITLE]
    for area, classes in groupby(error_classes(), key=lambda error: error.code.rpartition("-")[0]):
        parts.append(f"\n## {area}\n")
        parts += [_entry(error) for error in classes]
    return "".join(parts)


def _entry(error: type[MagError]) -> str:
    traits = f"HTTP {error.http_status}, exit {error.exit_code}{', worth a retry' if error.retryable else ''}"
    return f"\n### {error.code} {error.__name__}\n\n{cause_of(error)}\n\nNext: {error.remedy}\n\n{traits}.\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(error_page(), encoding="utf-8")
