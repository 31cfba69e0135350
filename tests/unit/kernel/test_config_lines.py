"""Every setting of a TOML file is found on the line where it stands, whatever the document looks like."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from magmobo.kernel.config.keys import around, joined
from magmobo.kernel.config.layers import toml_layer
from magmobo.kernel.config.lines import lines_of
from magmobo.kernel.errors import ConfigFileError

DOCUMENT = '''\
# the first line
title = "a # b"

[listener]  # a table
  port = 3
"quoted key" = 1
limits.body_bytes = 1
limits."rate [x]".per_s = 2.5
hosts = [
    "a",  # not ] the end
    "b, c", [
      1, {x = 1, y = [
        2]}],
]
text = """
line = 1
[not.a.table]
"quoted" ""two"" \\"""""
end = \'\'\'
'' = 3\'\'\'\'\'
inline = { a = 1, b.c = """
""", d = [1] }
when = 1979-05-27 07:32:00
empty = {}

[[magws.apps]]
id = "1"
[magws.apps.limits]
a = 1
[[magws.apps]]
[[magws.apps.rules]]
x = 1
[[magws.apps.rules]]
x = 2
[ magws . "tables" ]
a.b = 1
'''
LINES = {
    "title": 2,
    "listener.port": 5,
    'listener."quoted key"': 6,
    "listener.limits.body_bytes": 7,
    'listener.limits."rate [x]".per_s': 8,
    "listener.hosts": 9,
    "listener.hosts[0]": 10,
    "listener.hosts[1]": 11,
    "listener.hosts[2]": 11,
    "listener.hosts[2][0]": 12,
    "listener.hosts[2][1]": 12,
    "listener.hosts[2][1].y[0]": 13,
    "listener.text": 15,
    "listener.end": 19,
    "listener.inline.a": 21,
    "listener.inline.b.c": 21,
    "listener.inline.d": 22,
    "listener.when": 23,
    "magws.apps": 26,
    "magws.apps[0]": 26,
    "magws.apps[0].id": 27,
    "magws.apps[0].limits.a": 29,
    "magws.apps[1]": 30,
    "magws.apps[1].rules": 31,
    "magws.apps[1].rules[0]": 31,
    "magws.apps[1].rules[0].x": 32,
    "magws.apps[1].rules[1]": 33,
    "magws.apps[1].rules[1].x": 34,
    "magws.tables.a.b": 36,
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_document_with_everything(line_end: str) -> None:
    text = DOCUMENT.replace("\n", line_end)
    tomllib.loads(text)
    assert lines_of(text) == LINES


def test_a_layer_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mag.d" / "10.toml"
    path.parent.mkdir()
    path.write_text("\ufeff[sample]\nport = 5\n[sample.labels]\n")
    assert toml_layer(path, "10.toml").origins == {"sample.port": f"{path} line 2"}
    monkeypatch.chdir(tmp_path)
    assert toml_layer(path, "10.toml").origins["sample.port"] == "mag.d/10.toml line 2"


# ---------------------------------------------------------------- random documents

names = st.sampled_from(["a", "b", "c-1", "2", "x.y", "", "]", "#", 'q"', "'", "ü", "\\", "=", "\U0001f600", "a b"])
comments = st.sampled_from(["", "", "", " # why", "\t# ] } \" ''' =", "#"])
fillers = st.sampled_from(["", "\n", "# [x]\n", " \t\n\n", "# a = 1\n\n"])


def basic(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@st.composite
def spelled_name(draw: st.DrawFn, name: str) -> str:
    if name and name.replace("-", "a").isascii() and name.replace("-", "a").isalnum() and draw(st.booleans()):
        return name
    if "'" not in name and draw(st.booleans()):
        return f"'{name}'"
    if name == "\U0001f600" and draw(st.booleans()):
        return '"\\U0001F600"'
    return basic(name)


texts = st.text("ab \"'\\\n#[]{}=,.ü", max_size=12)


class Writer:
    """Writes a document piece by piece, and notes on which line each key begins."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[str, int] = {}

    def say(self, text: str) -> None:
        self.text += text

    def pick(self, *choices: str) -> str:
        return self._draw(st.sampled_from(choices))

    def here(self) -> int:
        return self.text.count("\n") + 1

    def dotted(self, path: list[str]) -> None:
        gap = self.pick("", "", " ", "\t")
        self.say(f"{gap}.{gap}".join(self._draw(spelled_name(name)) for name in path))

    def pair(self, table: str, path: list[str], depth: int, *, in_line: bool) -> None:
        line, key = self.here(), table
        for name in path:
            key = joined(key, name)
        self.dotted(path)
        self.say(self.pick("=", " = ", " =\t"))
        self.value(key, line, depth, in_line=in_line)

    def value(self, key: str, line: int, depth: int, *, in_line: bool = False) -> None:
        kind = self.pick("scalar", "text", "list", "table") if depth else self.pick("scalar", "text")
        if kind == "table":
            self.inline_table(key, depth)
            return
        self.lines[key] = line
        if kind == "scalar":
            self.say(self.pick("1", "-2.5e3", "true", "1979-05-27 07:32:00Z", "0xff", "inf", "1_000"))
        elif kind == "text":
            self.string()
        else:
            self.array(key, depth)

    def string(self) -> None:
        text = self._draw(texts)
        kind = self.pick("basic", "literal", "long", "long literal")
        if kind == "long":
            escaped = text.replace("\\", "\\\\").replace('"""', '""\\"')
            ending = "\\" if escaped.endswith('"') else ""
            escaped = escaped[:-1] + '\\"' if ending and self.pick("y", "n") == "y" else escaped
            self.say(f'"""{self.pick("", chr(10), chr(92) + chr(10))}{escaped}"""')
        elif kind == "long literal" and "'''" not in text:
            self.say(f"'''\n{text}'''")
        elif kind == "literal" and "'" not in text and "\n" not in text:
            self.say(f"'{text}'")
        else:
            self.say(basic(text))

    def array(self, key: str, depth: int) -> None:
        self.say("[")
        count = self._draw(st.integers(0, 3))
        for index in range(count):
            self.say(self.pick("", " ", "\n", " # ] \n", "\n\n\t"))
            self.value(f"{key}[{index}]", self.here(), depth - 1)
            self.lines.setdefault(f"{key}[{index}]", 0)
            self.say(self.pick("", " ", "\n", " # , \n"))
            self.say("," if index < count - 1 else self.pick("", ",", ",\n"))
        self.say(self.pick("", " ", "\n", "#]\n") + "]")

    def inline_table(self, key: str, depth: int) -> None:
        self.say("{" + self.pick("", " "))
        chosen = self._draw(st.lists(names, unique=True, max_size=3))
        for place, name in enumerate(chosen):
            self.pair(key, [name] + (["z"] if self.pick("", "z") else []), depth - 1, in_line=True)
            self.say(self.pick("", " "))
            self.say("," + self.pick("", " ") if place < len(chosen) - 1 else "")
        self.say("}")


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    writer = Writer(draw)
    tables: dict[str, int] = {}

    def pairs(table: str) -> None:
        for name in draw(st.lists(names, unique=True, max_size=3)):
            writer.say(draw(fillers) + writer.pick("", "  "))
            writer.pair(table, [name, *draw(st.lists(names, max_size=2))], 2, in_line=False)
            writer.say(draw(comments) + "\n")

    pairs("")
    for name in draw(st.lists(names, unique=True, max_size=3)):
        path = [f"t{name}", *draw(st.lists(names, max_size=1))]
        for _ in range(draw(st.integers(1, 3))):
            writer.say(draw(fillers))
            key = ""
            for part in path:
                key = joined(key, part)
            line, is_array = writer.here(), draw(st.booleans()) or key in tables
            writer.say("[[" if is_array else "[")
            writer.dotted(path)
            writer.say(("]]" if is_array else "]") + draw(comments) + "\n")
            if not is_array:
                pairs(key)
                break
            tables[key] = tables.get(key, -1) + 1
            writer.lines.setdefault(key, line)
            element = f"{key}[{tables[key]}]"
            writer.lines[element] = line
            pairs(element)
            if draw(st.booleans()):
                writer.say(draw(fillers) + "[")
                writer.dotted([*path, "sub table"])
                writer.say("]\n")
                pairs(joined(element, "sub table"))
    return writer.text, writer.lines


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything that is no table, and what is in lists."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves_of(item, joined(path, name))
        return
    yield path, value
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves_of(item, f"{path}[{index}]")


def told(lines: dict[str, int], key: str) -> int:
    while key not in lines:
        key = around(key)
    return lines[key]


@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(documents())
def test_every_key_of_any_document_is_found_on_its_line(document: tuple[str, dict[str, int]]) -> None:
    text, written = document
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    found = lines_of(text)
    leaves = dict(leaves_of(values))
    for key in leaves:
        assert told(found, key) == written[key], key
    assert all(key in leaves or "[" in key for key in found)
    assert {key for key in leaves if "[" not in key} <= found.keys() | {key for key in leaves if '"' in key}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_that_is_cut_off_anywhere_is_an_error_or_a_shorter_file(tmp_path: Path, line_end: str) -> None:
    content = DOCUMENT.replace("\n", line_end).replace("a # b", "ü # \U0001f600").encode()
    path = tmp_path / "mag.toml"
    refusals = set()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            layer = toml_layer(path, "mag.toml")
        except ConfigFileError as error:
            refusals.add(str(error).partition(str(path))[0])
            continue
        assert layer.values == tomllib.loads(content[:length].decode())
        assert layer.origins.items() <= {key: f"{path} line {line}" for key, line in LINES.items()}.items()
    assert refusals == {""}, "every refusal begins with the file"
