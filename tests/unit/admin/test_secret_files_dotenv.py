"""The grammar of `.env` files: what is read, what is refused, and that no refusal quotes the file."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.admin.secret_files.dotenv import parse_dotenv, value_of
from magmobo.admin.secret_files.errors import SecretFileMalformed
from magmobo.admin.secret_files.names import Found

HERE = Path("a.env")


def values(text: str) -> Mapping[str, str]:
    return {".".join(entry.keys): entry.value for entry in parse_dotenv(HERE, text)}


def outcome(text: str) -> tuple[Sequence[Found], SecretFileMalformed | None]:
    try:
        return parse_dotenv(HERE, text), None
    except SecretFileMalformed as refusal:
        return [], refusal


def problems(text: str) -> list[str]:
    with pytest.raises(SecretFileMalformed) as refusal:
        parse_dotenv(HERE, text)
    return list(refusal.value.problems)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("A=", ""),
        ("A=''", ""),
        ('A=""', ""),
        ("  A  =  spaced out  ", "spaced out"),
        ("\texport\tA=x", "x"),
        ("export A=x", "x"),
        ("A=a=b==", "a=b=="),
        ("A=x # comment", "x"),
        ("A=x\t# comment", "x"),
        ("A=x#no comment", "x#no comment"),
        ("A=#no comment", "#no comment"),
        ("A= #comment", ""),
        ("A='single # \\n $HOME ${X}'", "single # \\n $HOME ${X}"),
        ("A='x' # comment", "x"),
        ("A= 'x'#comment", "x"),
        ('A="a\\nb\\tc\\rd\\\\e\\"f\\$g"', 'a\nb\tc\rd\\e"f$g'),
        ('A="C:\\dir \\` \\u0041"', "C:\\dir \\` \\u0041"),
        ("A=$HOME/${X}", "$HOME/${X}"),
        ('A="$HOME/${X}"', "$HOME/${X}"),
        ("A=it's", "it's"),
        ('A=5"', '5"'),
        ("A=one\ntwo=2", "one"),
        ("A='first\n# second\nB=third'", "first\n# second\nB=third"),
        ('A="-----BEGIN\r\nabc\r\n"', "-----BEGIN\nabc\n"),
        ("A=x\r\n", "x"),
        ("A=päß🔑", "päß🔑"),
        ("A=\u2028x", "\u2028x"),
    ],
)
def test_values(line: str, value: str) -> None:
    assert values(line)["A"] == value


def test_comments_and_blank_lines_are_nothing() -> None:
    assert values("\n# A=1\n  # B=2\n \t\nC=3\n\n") == {"C": "3"}


def test_keys_may_have_dots_and_dashes_and_be_named_export() -> None:
    assert values("a.b-c=1\n_x=2\nexport =3\nexport=4\nexported=5") == {
        "a.b-c": "1", "_x": "2", "export": "4", "exported": "5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hunter2", "line 1: not KEY=value"),
        ("A=1\n\nhunter2 hunter2", "line 3: not KEY=value"),
        ("1A=hunter2", "line 1: not KEY=value"),
        ("=hunter2", "line 1: not KEY=value"),
        ("A B=hunter2", "line 1: not KEY=value"),
        ("A: hunter2", "line 1: not KEY=value"),
        ("A='hunter2", "line 1: a quote ' is never closed"),
        ('A="hunter2\\"', 'line 1: a quote " is never closed'),
        ("A='x' hunter2", "line 1: something follows the closing '"),
        ("A='hun\nter'2", "line 1: something follows the closing '"),
        ('A="x""hunter2"', 'line 1: something follows the closing "'),
        ("A=`hunter2`", "line 1: a value in backticks; use ' or \""),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str, problem: str) -> None:
    assert problems(text) == [problem]
    assert "hunter2" not in str(SecretFileMalformed(HERE, [problem]))


def test_all_problems_are_said_at_once_with_the_lines_after_values_of_several_lines() -> None:
    assert problems("bad\nA='one\ntwo'\nworse\nB=\"x\" y\nC='open\nD=1\n") == [
        "line 1: not KEY=value",
        "line 4: not KEY=value",
        'line 5: something follows the closing "',
        "line 6: a quote ' is never closed",
    ]


def test_places_are_the_lines_on_which_keys_stand() -> None:
    assert [entry.place for entry in parse_dotenv(HERE, "\nA='1\n2\n3'\n\nB=2")] == ["line 2", "line 6"]


PRINTABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"))


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), PRINTABLE))
def test_whatever_is_written_in_double_quotes_is_read_back(wanted: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = "\n".join(f"export {key}={quoted(value)} # \"'" for key, value in wanted.items())
    assert values(text) == wanted
    assert all(value_of(quoted(value)) == value for value in wanted.values())


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), PRINTABLE))
def test_whatever_has_no_single_quote_is_read_back_from_single_quotes(wanted: dict[str, str]) -> None:
    wanted = {key: value.replace("'", "") for key, value in wanted.items()}
    assert values("\n".join(f"{key} = '{value}'" for key, value in wanted.items())) == wanted


@given(st.text(alphabet=[*string.printable, "é", "\0"], max_size=60))
@example("A='" * 20)
@example('A="\\')
def test_any_text_is_read_or_refused(text: str) -> None:
    plain = text.replace("\r\n", "\n")
    found, refusal = outcome(text)
    assert all(entry.value in plain or "\\" in text for entry in found)
    lines = [int(problem.split()[1].rstrip(":")) for problem in (refusal.problems if refusal else ())]
    assert all(1 <= line <= plain.count("\n") + 1 for line in lines)
    assert lines == sorted(set(lines))


@pytest.mark.parametrize("evil", ["A=' #'\n", "\\", " ", "\t=", "export ", "A", '"\\', " #", 'A="x" \''])
def test_a_megabyte_of_anything_takes_no_more_than_linear_time(evil: str) -> None:
    text = "A=" + evil * (1_000_000 // len(evil))
    _, refusal = outcome(text)
    assert len(str(refusal)) < 2_000


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("x", "x"),
        (" x # c", "x"),
        ("'x y'", "x y"),
        ('"a\nb"', "a\nb"),
        ("a\nb", "a\nb"),
        ("'x", None),
        ("'x' y", None),
    ],
)
def test_a_value_that_stands_alone(raw: str, value: str | None) -> None:
    assert value_of(raw) == value
