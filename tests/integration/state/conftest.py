"""An open state store on a real file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magmobo.kernel.state.manager import StateManager


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state file is; it does not exist yet."""
    return tmp_path / "state.db"


@pytest.fixture
async def manager(path: Path) -> AsyncIterator[StateManager]:
    """Open until the test ends."""
    manager = StateManager(path)
    await manager.open()
    yield manager
    await manager.close()
