"""Commands are named as the user can type them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from magmobo.cli.output import as_typed

TEXT = "Stop it with `mag down`, or read `mag_data`."


def program(folder: Path) -> Path:
    """A file that can be run, as `mag` is in a virtual environment."""
    path = folder / ".venv" / "bin" / "mag"
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    return path


def test_outside_of_the_path_the_program_is_named_by_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", [str(program(tmp_path)), "up"])
    monkeypatch.chdir(tmp_path)
    assert as_typed(TEXT) == "Stop it with `.venv/bin/mag down`, or read `mag_data`."
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert as_typed(TEXT) == f"Stop it with `{tmp_path}/.venv/bin/mag down`, or read `mag_data`."


def test_in_the_path_its_name_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = program(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(found), "up"])
    monkeypatch.setenv("PATH", str(found.parent))
    assert as_typed(TEXT) == TEXT
