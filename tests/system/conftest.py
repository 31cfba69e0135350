"""Whole nodes, the way users run them."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a node of this test keeps its things; it does not exist yet."""
    return tmp_path / "mag_data"
