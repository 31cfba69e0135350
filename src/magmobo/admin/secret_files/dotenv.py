"""The grammar of `.env` files: lines `KEY=value`, as loaders of several languages and a shell agree on it.

    # a comment
    export PLAIN=up to the end of the line   # and this is a comment, after white space
    SINGLE='as it is, over several lines too'
    DOUBLE="with \\n, \\r, \\t, \\\\, \\" and \\$; any other backslash stays"

Boundary: text in, values out, no I/O. Nothing is interpolated: `$` and `${NAME}` stay as they are, because a password
may hold them. Invariant: a line that could be read in two ways is a problem, never a guess, and no problem quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from magmobo.admin.secret_files.errors import SecretFileMalformed
from magmobo.admin.secret_files.names import Found

_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=")
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"[ \t]*(?:#.*)?")
_COMMENT = re.compile(r"[ \t]#")
_DOUBLE = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_SINGLE = re.compile(r"'([^']*+)'")
_ESCAPE = re.compile(r'\\([nrt\\"$])')
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}


def parse_dotenv(path: Path, text: str) -> Sequence[Found]:
    """Every value with its key and line. Raises: SecretFileMalformed with every bad line; `path` is for its text."""
    text = text.replace("\r\n", "\n")
    found: list[Found] = []
    problems: list[str] = []
    position, line = 0, 1
    while position < len(text):
        end = _line_end(text, position)
        key = _KEY.match(text, position, end)
        if key is None:
            if not _BLANK.fullmatch(text, position, end):
                problems.append(f"line {line}: not KEY=value")
        else:
            value, end, problem = _value_at(text, key.end())
            if problem:
                problems.append(f"line {line}: {problem}")
            else:
                found.append(Found([key[1]], value, f"line {line}"))
        line += text.count("\n", position, end) + 1
        position = end + 1
    if problems:
        raise SecretFileMalformed(path, problems)
    return found


def value_of(raw: str) -> str | None:
    """What a value means that stands alone, newlines and all; None when it is not one."""
    if raw.lstrip(" \t")[:1] not in ("'", '"', "`"):
        return _bare(raw)
    value, end, problem = _value_at(raw, 0)
    return None if problem or end != len(raw) else value


def _value_at(text: str, start: int) -> tuple[str, int, str]:
    """The value that begins here, where its last line ends, and what is wrong with it."""
    space = _SPACE.match(text, start)
    first = space.end() if space else start
    quote = text[first : first + 1]
    if quote not in ("'", '"'):
        end = _line_end(text, start)
        return _bare(text[start:end]), end, "a value in backticks; use ' or \"" if quote == "`" else ""
    match = (_SINGLE if quote == "'" else _DOUBLE).match(text, first)
    if match is None:
        return "", len(text), f"a quote {quote} is never closed"
    end = _line_end(text, match.end())
    if not _BLANK.fullmatch(text, match.end(), end):
        return "", end, f"something follows the closing {quote}"
    return match[1] if quote == "'" else _ESCAPE.sub(_unescaped, match[1]), end, ""


def _unescaped(escape: re.Match[str]) -> str:
    return _ESCAPED.get(escape[1], escape[1])


def _bare(raw: str) -> str:
    comment = _COMMENT.search(raw)
    return (raw if comment is None else raw[: comment.start()]).strip(" \t")


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
