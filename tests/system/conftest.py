"""Whole nodes, the way users run them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a node of this test keeps its things; it does not exist yet."""
    return tmp_path / "mag_data"


@pytest.fixture
def _without_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """For nodes that have no MagDS: what the session says for its clusters would be an unknown section there."""
    monkeypatch.delenv("MAG_MAGDS__SYSTEM_DIR", raising=False)
