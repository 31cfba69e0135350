"""Nodes that are killed, the way crashes come."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a node of this test keeps its things; it does not exist yet."""
    return tmp_path / "mag_data"
