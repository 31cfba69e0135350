"""Where the kernel keeps things below the data folder; also for those who read them while no node runs."""

from __future__ import annotations

from pathlib import Path


def state_file(data_dir: Path) -> Path:
    """The state store, a SQLite file with its neighbours `-wal` and `-shm`."""
    return data_dir / "state" / "state.db"


def audit_dir(data_dir: Path) -> Path:
    """The segments of the audit log, and the key that signs its checkpoints."""
    return data_dir / "audit"
