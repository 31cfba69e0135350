"""On which line of a TOML document each setting stands.

`tomllib` forgets where a value came from, so this reads the same text once more, for keys and line ends only.
Invariant: it is given text that `tomllib` took, so it looks for where things end and never judges them.
Source: https://toml.io/en/v1.0.0
"""

from __future__ import annotations

import re

from magmobo.kernel.config.keys import joined

# Every repetition is possessive: nothing is ever tried twice, so the time is linear in the text.
_BLANK = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_NAME = re.compile(r"""[ \t]*+(?:([A-Za-z0-9_-]++)|("(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+'))[ \t]*+(\.?)""")
_STRINGS = re.compile(
    r'"""(?:[^"\\]++|\\.|"{1,2}(?!"))*+"{3,5}'
    r"|'''(?:[^']++|'{1,2}(?!'))*+'{3,5}"
    r'|"(?:[^"\\\n]++|\\.)*+"'
    r"|'[^'\n]*+'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*+")


def lines_of(text: str) -> dict[str, int]:
    """The line of every key, from 1; of a list also the lines of what is in it, as far as they differ from its own.

    Raises: RecursionError when lists stand in lists several hundred deep.
    """
    return _Reader(text).lines()


class _Reader:
    """Goes through the text once. `_arrays`: of each array of tables, the index of the table that is open."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._counted_to, self._line = 0, 1
        self._arrays: dict[str, int] = {}
        self._found: dict[str, int] = {}

    def lines(self) -> dict[str, int]:
        """`lines_of`, once."""
        table = ""
        while self._skip_blank():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table, 0)
        return self._found

    def _skip_blank(self) -> bool:
        """Behind blanks, line ends and comments; whether there is more."""
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at < len(self._text)

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _header(self) -> str:
        """Behind `[table]` or `[[array]]`; the key under which what follows stands."""
        line = self._line_here()
        is_array = self._text.startswith("[[", self._at)
        self._at += 1 + is_array
        path, names = "", self._names()
        self._at = self._text.index("]", self._at) + 1 + is_array
        for place, name in enumerate(names, 1):
            path = joined(path, name)
            if is_array and place == len(names):
                self._arrays[path] = self._arrays.get(path, -1) + 1
                self._found.setdefault(path, line)
                self._found[f"{path}[{self._arrays[path]}]"] = line
            if path in self._arrays:
                path = f"{path}[{self._arrays[path]}]"
        return path

    def _names(self) -> list[str]:
        """Behind a key with dots; its names."""
        names, has_more = [], "."
        while has_more:
            found = _NAME.match(self._text, self._at)
            if found is None:
                raise ValueError(f"no key at offset {self._at}: this is not a document that tomllib took")
            bare, quoted, has_more = found.groups()
            names.append(bare or _unquoted(quoted))
            self._at = found.end()
        return names

    def _pair(self, table: str, known_line: int) -> None:
        """Behind `key = value`. `known_line`: where the list is that this stands in, or 0."""
        line, path = self._line_here(), table
        for name in self._names():
            path = joined(path, name)
        self._at += 1
        self._skip_blank()
        if self._text[self._at] != "{" and line != known_line:
            self._found[path] = line
        self._value(path, known_line if self._text[self._at] == "{" else line)

    def _value(self, path: str, line: int) -> None:
        """Behind a value. `line`: where it is known to stand."""
        first = self._text[self._at]
        if first == "[":
            self._list(path, line)
        elif first == "{":
            self._inline_table(path, line)
        elif found := (_STRINGS if first in "\"'" else _SCALAR).match(self._text, self._at):
            self._at = found.end()

    def _list(self, path: str, line: int) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and self._text[self._at] != "]":
            item, item_line = f"{path}[{index}]", self._line_here()
            if item_line != line:
                self._found[item] = item_line
            self._value(item, item_line)
            self._skip_comma()
            index += 1
        self._at += 1

    def _inline_table(self, path: str, known_line: int) -> None:
        self._at += 1
        while self._skip_blank() and self._text[self._at] != "}":
            self._pair(path, known_line)
            self._skip_comma()
        self._at += 1

    def _skip_comma(self) -> None:
        if self._skip_blank() and self._text[self._at] == ",":
            self._at += 1


def _unquoted(name: str) -> str:
    import tomllib  # whoever has a document has loaded it

    return str(tomllib.loads(f"name = {name}")["name"])
