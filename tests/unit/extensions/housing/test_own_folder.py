"""A folder of an extension's own is made, closed to others, and never somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from magmobo.extensions.housing import _furnish

BOUND_BYTES = 1_000_000


def test_it_is_made_and_closed(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "demo.0"
    for _ in range(2):
        assert _furnish(folder, os.geteuid(), BOUND_BYTES) == ""
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o755)


def test_a_link_in_its_place_is_refused_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    others.chmod(0o755)
    folder = tmp_path / "demo.0"
    folder.symlink_to(others)
    with pytest.raises(NotADirectoryError, match="it is a link"):
        _furnish(folder, os.geteuid(), BOUND_BYTES)
    assert others.stat().st_mode & 0o777 == 0o755


def test_what_is_too_much_in_it_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "demo.0"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 20_000)
    assert "more than 10000 bytes" in _furnish(folder, os.geteuid(), 10_000)
