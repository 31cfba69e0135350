"""What was acknowledged has reached the disk. A kill -9 cannot tell: the system keeps what a process had written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.integration.audit.support import OPERATOR, Place

from magmobo.kernel.audit.record import record_of


class Disk:
    """What a power cut would leave of a folder: names that were synced, each with its content at its last sync."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._contents: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))

    def lines(self) -> set[bytes]:
        """Every line that would be there."""
        contents = [
            self._contents.get(number, b"") for name, number in self._names.items() if name.startswith("audit-")
        ]
        return {line for content in contents for line in content.splitlines()}

    def _watched(self, real: Any) -> Any:
        def sync(descriptor: int) -> None:
            real(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path == self._folder:
                self._names = {entry.name: entry.inode() for entry in os.scandir(path)}
            elif path.parent == self._folder:
                self._contents[path.stat().st_ino] = path.read_bytes()

        return sync


async def test_what_was_acknowledged_survives_a_power_cut_also_over_new_segments(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(place.audit, monkeypatch)
    async with place.running(segment_bytes=3_000, checkpoint_every=10) as log:
        for number in range(40):
            record = await log.record("component.restart", actor=OPERATOR, payload={"n": number})
            there = [found for line in disk.lines() if (found := record_of(line))]
            assert record in there, f"record {number} was acknowledged and is not on the disk"
    assert len(place.segments()) > 5
