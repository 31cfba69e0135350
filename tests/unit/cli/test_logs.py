"""Log lines for people: any line is shown, none drives the terminal; following survives rotation."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import click
from hypothesis import given
from hypothesis import strategies as st

from magmobo.cli.logs import new_lines, pretty


@given(
    st.text()
    | st.dictionaries(
        st.sampled_from(["time", "level", "event", "component", "exception", "x"]), st.text() | st.integers()
    ).map(json.dumps)
)
def test_any_line_can_be_shown(line: str) -> None:
    shown = click.unstyle(pretty(line))
    assert all(row.isprintable() for row in shown.split("\n"))


def test_a_line_is_time_level_component_event_and_the_rest() -> None:
    line = '{"time": "T", "level": "info", "event": "ready", "component": "kernel", "instance_id": "i", "boot_s": 0.1}'
    assert click.unstyle(pretty(line)) == "T info    kernel     ready  boot_s=0.1"


def test_following_gives_whole_lines_also_from_the_file_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "mag.jsonl"
    path.write_text("old\n")
    with path.open() as file:
        file.read()
        lines = new_lines(path, file, poll_s=0.001)
        with path.open("a") as writer:
            writer.write("one\ntw")
            writer.flush()
            assert next(lines) == "one\n"
            writer.write("o\n")
            writer.flush()
            assert next(lines) == "two\n"
            writer.write("last of the old file\n")
        path.rename(tmp_path / "mag.jsonl.1")
        path.write_text("first of the new\nsecond\n")
        assert list(islice(lines, 3)) == ["last of the old file\n", "first of the new\n", "second\n"]
