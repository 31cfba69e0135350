"""Whole nodes, the way users run them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.crash.support import TABLE
from tests.system.settings_node import READER


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a node of this test keeps its things; it does not exist yet."""
    return tmp_path / "mag_data"


@pytest.fixture
def _without_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """For nodes without storage and extensions: what the session says for both would be unknown sections there."""
    for component in ("MAGDS", "EXTENSIONS"):
        monkeypatch.delenv(f"MAG_{component}__SYSTEM_DIR", raising=False)


@pytest.fixture
def _without_extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """For nodes that have no extensions: what the session says for their files would be an unknown section there."""
    monkeypatch.delenv("MAG_EXTENSIONS__SYSTEM_DIR", raising=False)


@pytest.fixture
def events_dsn(dsn: str) -> Iterator[str]:
    """A database with the table that the load is about, and a role that may read it."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"{TABLE}; create role {READER}; grant select on public.events to {READER}".encode())
    yield dsn
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"drop owned by {READER}; drop role {READER}".encode())
