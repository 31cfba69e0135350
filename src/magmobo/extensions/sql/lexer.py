"""The tokens of SQL exactly as Postgres cuts them, for the part of its syntax that extensions may use. No I/O.

This reader, not the parser's, decides what a statement consists of: what goes to the parser is put together from these
tokens, and what the parser prints is cut again. Invariant: whatever it returns, Postgres (standard_conforming_strings
on) cuts into the same tokens; what it is not sure of raises.
Source: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from magmobo.extensions.sql.errors import StatementRefused, StatementTooLarge
from magmobo.extensions.sql.words import OPERATORS

MAX_TOKENS = 20_000


class Kind(IntEnum):
    """What a token is. `WORD` is a keyword or an unquoted name, in lower case."""

    WORD = 1
    NAME = 2
    STRING = 3
    NUMBER = 4
    PARAMETER = 5
    OPERATOR = 6
    MARK = 7


class Token(NamedTuple):
    """`text` of a name or a string is its content, without quotes."""

    kind: Kind
    text: str


# What repeats is possessive or one class, so nothing is tried twice, and no string ends early because none ends late.
_PATTERN = re.compile(
    r"""
    (?P<space>[ \t\r\n\f\v]+)
  | (?P<line>--[^\r\n]*)
  | (?P<block>/\*)
  | '(?P<string>(?:[^']|'')*+)'
  | "(?P<name>(?:[^"]|"")++)"
  | \$(?P<parameter>[1-9][0-9]{0,4})
  | (?P<dollar>\$(?:[a-z_][a-z0-9_]*)?\$)
  | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?)
  | (?P<word>[a-z_][a-z0-9_$]*)
  | (?P<cast>::)
  | (?P<mark>[](),.;:[])
  | (?P<operator>[-+*/<>=~!@\#%^&|`?]+)
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
# After these a word would begin, or the token would go on, without a space between.
_GLUED = re.compile(r"[a-z0-9_$'\"\x80-\U0010ffff]", re.IGNORECASE)
_PREFIX_BEFORE_QUOTE = "a word directly before a quote (E'…', B'…', U&'…'): use a plain '…' or a parameter"
_KEEPS_ITS_SIGN = frozenset("~!@#%^&|`?")


def tokens(sql: str, *, strict: bool = False) -> list[Token]:
    """The tokens of `sql`, comments left out. `strict`: what was printed, which has no comments and no `$$…$$`.

    Raises: StatementRefused, StatementTooLarge.
    """
    if "\0" in sql:
        raise StatementRefused("it holds a NUL byte")
    found: list[Token] = []
    at = 0
    while at < len(sql):
        match = _PATTERN.match(sql, at)
        if match is None or match.lastgroup is None:
            raise StatementRefused(f"the character {sql[at]!r} (quote names that are not plain letters)")
        at, kind = match.end(), match.lastgroup
        if kind in ("line", "block", "dollar") and strict:
            raise StatementRefused("a comment where none can be")
        if kind == "block":
            at = _end_of_comment(sql, at)
        elif kind == "dollar":
            at = _dollar_string(sql, match.group(), at, found)
        elif kind not in ("space", "line"):
            at = _append(sql, match, kind, found)
        if len(found) > MAX_TOKENS:
            raise StatementTooLarge(f"it has more than {MAX_TOKENS} words")
    return found


def statements(found: Sequence[Token]) -> list[list[Token]]:
    """The tokens of each statement; empty ones are left out."""
    cut: list[list[Token]] = [[]]
    for token in found:
        if token == (Kind.MARK, ";"):
            cut.append([])
        else:
            cut[-1].append(token)
    return [one for one in cut if one]


def written(found: Sequence[Token]) -> str:
    """The tokens as text that cannot be cut in another way."""
    return " ".join(_written(token) for token in found)


def _written(token: Token) -> str:
    if token.kind is Kind.STRING:
        return "'" + token.text.replace("'", "''") + "'"
    if token.kind is Kind.NAME:
        return '"' + token.text.replace('"', '""') + '"'
    return f"${token.text}" if token.kind is Kind.PARAMETER else token.text


def _append(sql: str, match: re.Match[str], kind: str, found: list[Token]) -> int:
    """Add the token; where to go on."""
    text, end = match.group(kind), match.end()
    follower = sql[end : end + 1]
    if kind == "operator":
        operator = _operator(text)
        found.append(Token(Kind.OPERATOR, operator))
        return end - len(text) + len(operator)
    if kind == "word":
        if follower in ("'", '"') or (follower == "&" and text.lower() == "u" and sql[end + 1 : end + 2] in ("'", '"')):
            raise StatementRefused(_PREFIX_BEFORE_QUOTE)
        found.append(Token(Kind.WORD, text.lower()))
    elif kind in ("number", "parameter"):
        if _GLUED.match(follower):
            raise StatementRefused(f"{match.group()}{follower}: a number and a word with no space between")
        found.append(Token(Kind.NUMBER if kind == "number" else Kind.PARAMETER, text.lower()))
    elif kind in ("string", "name"):
        quote = "'" if kind == "string" else '"'
        found.append(Token(Kind.STRING if kind == "string" else Kind.NAME, text.replace(quote * 2, quote)))
    elif text + follower in (":=", ".."):
        raise StatementRefused(f"{text}{follower}")
    else:
        found.append(Token(Kind.MARK, text))
    return end


def _operator(run: str) -> str:
    """The operator that a run of operator characters begins with, by the rules of Postgres."""
    for comment in ("--", "/*"):
        place = run.find(comment)
        if place > 0:
            run = run[:place]
    while len(run) > 1 and run[-1] in "+-" and not _KEEPS_ITS_SIGN & set(run[:-1]):
        run = run[:-1]
    if run not in OPERATORS:
        raise StatementRefused(f"the operator {run[:20]}")
    return run


def _end_of_comment(sql: str, at: int) -> int:
    """Comments nest."""
    depth = 1
    for mark in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return mark.end()
    raise StatementRefused("a comment that does not end")


def _dollar_string(sql: str, tag: str, at: int, found: list[Token]) -> int:
    end = sql.find(tag, at)
    if end < 0:
        raise StatementRefused(f"a string that does not end ({tag})")
    found.append(Token(Kind.STRING, sql[at:end]))
    return end + len(tag)
