"""pytest's side of `magx.testing`: the fixture `magx_kernel`.

The extension is the one whose `manifest.json` is nearest above the test's file. `@pytest.mark.magx_settings(key=…)`
gives it settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from magx.testing import FakeKernel


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest about the marker."""
    config.addinivalue_line("markers", "magx_settings(**settings): settings of the extension under test")


@pytest.fixture
def magx_kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeKernel]:
    """A fake kernel with the extension loaded; the test's `tmp_path` is the extension's own folder."""
    from magx.testing import FakeKernel  # other test suites of this environment do not pay for it

    marker = request.node.get_closest_marker("magx_settings")
    with FakeKernel(_folder_above(request.path), marker.kwargs if marker else None, tmp_path) as kernel:
        yield kernel


def _folder_above(test: Path) -> Path:
    for folder in test.parents:
        if (folder / "manifest.json").is_file():
            return folder
    raise FileNotFoundError(f"no manifest.json in a folder above {test}")
