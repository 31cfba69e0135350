"""A log and a table for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.audit.support import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A data folder on which no log was ever opened."""
    return Place(tmp_path / "mag_data")
