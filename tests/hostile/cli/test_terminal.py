"""Text from elsewhere on its way to a terminal: an escape sequence, C1 controls, text that runs backwards."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from magmobo.cli.logs import logs
from magmobo.cli.output import escaped, json_line
from magmobo.kernel.observe.logging import LogOutput
from magmobo.kernel.observe.writer import LineWriter

EVILS = [
    "\x1b[2J",
    "\x9b31m",
    "\x7f",
    "\u202egnp.exe",
    "\u2066",
    "\u200b",
    "\U000e0041",
    "\r",
    "\b",
    "a\nb",
    "\x85",
    "\ud800",
]
Capture = pytest.CaptureFixture[str]


def drives(text: str) -> bool:
    return not text.replace("\n", "").isprintable()


@pytest.mark.parametrize("evil", EVILS)
def test_json_says_it_without_doing_it(evil: str) -> None:
    value = {"text": f"é{evil}", evil: [evil]}
    line = json_line(value)
    assert line.isprintable()
    assert json.loads(line) == value


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_json_stays_json_where_not_every_letter_can_be_written(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    value = {"text": "Ж é \U0001f600 \x9b"}
    line = json_line(value)
    assert json.loads(line.encode(encoding)) == value


def test_what_is_harmless_stays_as_it_is() -> None:
    assert escaped('{"text": "Größe 10 €"}') == '{"text": "Größe 10 €"}'


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("evil", EVILS)
def test_the_log_does_not_drive_the_terminal(evil: str, more: list[str], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "logs").mkdir()
    line = json.dumps({"level": "info", "event": f"x{evil}", evil: evil}, ensure_ascii=False)
    text = f"{line}\nno JSON at all {evil}\n"
    (tmp_path / "logs" / "mag.jsonl").write_bytes(text.encode(errors="surrogatepass"))
    logs.main([*more, "--data-dir", str(tmp_path)], standalone_mode=False)
    assert not drives(capsys.readouterr().out)


class Kept:
    """A target that remembers."""

    def __init__(self) -> None:
        self.lines = b""

    def write(self, lines: bytes) -> None:
        self.lines += lines

    def close(self) -> None:
        """Nothing to release."""


@pytest.mark.parametrize("evil", EVILS)
def test_lines_for_people_hold_no_sequence_but_our_own_colours(evil: str) -> None:
    kept = Kept()
    output = LogOutput(instance_id="node", writers=[(LineWriter(kept), True)])
    output.write({"level": "info", "event": f"x{evil}y", "field": f"x{evil}y", "exception": f"Traceback\n  x{evil}y"})
    output.close()
    shown = kept.lines.decode()
    for colour in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3", "\x1b[4"):
        shown = shown.replace(colour, "")
    assert "Traceback\n" in shown
    assert not drives(shown)
