"""Tokens as Postgres cuts them; what could be cut in two ways is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.extensions.sql.errors import StatementRefused
from magmobo.extensions.sql.lexer import Kind, Token, statements, tokens, written
from magmobo.extensions.sql.words import OPERATORS

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
WORD = st.from_regex(r"[a-z_][a-z0-9_$]{0,8}", fullmatch=True)
NUMBER = st.from_regex(r"(0|[1-9][0-9]{0,5})(\.[0-9]{1,3})?(e-?[0-9])?", fullmatch=True)
TOKEN = st.one_of(
    WORD.map(lambda text: Token(Kind.WORD, text)),
    TEXT.map(lambda text: Token(Kind.STRING, text)),
    TEXT.filter(bool).map(lambda text: Token(Kind.NAME, text)),
    NUMBER.map(lambda text: Token(Kind.NUMBER, text)),
    st.integers(1, 999).map(lambda number: Token(Kind.PARAMETER, str(number))),
    st.sampled_from(sorted(OPERATORS)).map(lambda text: Token(Kind.OPERATOR, text)),
    st.sampled_from("(),.[]:;").map(lambda text: Token(Kind.MARK, text)),
)
SPACE = st.sampled_from([" ", "\n", "\t \r\n", " -- a comment ' \" $$ /*\n", " /* a /* nested */ ' comment -- */ "])


@given(st.lists(TOKEN, max_size=20), st.data())
def test_what_was_written_is_read_again_whatever_stands_between(found: list[Token], data: st.DataObject) -> None:
    text = "".join(part for token in found for part in (written([token]), data.draw(SPACE)))
    assert tokens(text) == found
    assert tokens(written(found), strict=True) == found


@given(st.text(max_size=60) | st.text("'\"$-/*eEuU&bx;\\ \n\0()=a1.", max_size=40))
@example("'" * 4001)
@example("/*" * 3000)
@example("$a$" * 2001)
@example("--" * 5000)
@example('"' * 4001)
def test_any_text_gives_tokens_that_are_stable_or_is_refused(text: str) -> None:
    try:
        found = tokens(text)
    except StatementRefused:
        return
    assert tokens(written(found), strict=True) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=-1", ["a", "=", "-", "1"]),
        ("a=--1\n2", ["a", "=", "2"]),
        ("a*/**/b", ["a", "*", "b"]),
        ("1-1", ["1", "-", "1"]),
        ("a->>'b'", ["a", "->>", "b"]),
        ("'it''s'", ["it's"]),
        ('"a""b"', ['a"b']),
        ("$$it's$$", ["it's"]),
        ("$a$ $$ $b$ $a$", [" $$ $b$ "]),
        ("SeLeCt", ["select"]),
        ("x::int[]", ["x", "::", "int", "[", "]"]),
        (".5", [".5"]),
        ("1.e5", ["1.e5"]),
        ("a$b", ["a$b"]),
        ("$1", ["1"]),
        ("'a\\'", ["a\\"]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert [token.text for token in tokens(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "e'a'", "E'a\\'b'", "b'1'", "x'ff'", "n'a'", "u&'a'", 'U&"a"', "'open", '"open', "$$open", "$a$open$b$",
        "/* open", "/* /* */", '""', "a\\b", "é", "'a'é", "1a", "1'a'", "$1a", "0x1f", "1_000", "1e", "@-1", "||-1",
        "a === b", "`a`", "a := 1", "a..b", "\0", "'\0'", "'a''", '"a""', "{", "\u2028", "a\u00a0b", "$0", "$", "a!b",
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused(text: str) -> None:
    with pytest.raises(StatementRefused):
        tokens(text)


def test_statements_are_cut_at_semicolons_outside_of_quotes() -> None:
    found = statements(tokens("select ';' ; ; select \";\" -- ;\n;"))
    assert [written(one) for one in found] == ["select ';'", 'select ";"']


@pytest.mark.parametrize("text", ["select 1 -- x", "select /* x */ 1", "select $$x$$"])
def test_what_was_printed_has_no_comments(text: str) -> None:
    tokens(text)
    with pytest.raises(StatementRefused):
        tokens(text, strict=True)
