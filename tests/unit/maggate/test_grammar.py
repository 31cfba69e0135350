"""The URL grammar: what it reads, what it refuses, and that nothing else can happen."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.components.maggate import grammar
from magmobo.components.maggate.errors import GateError, InvalidQuery, NotEmbedded, TooMuch, UrlTooLong
from magmobo.components.maggate.grammar import ParsedQuery, parse_query
from magmobo.components.maggate.query import Condition, Field, Logic, Sort

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
PLAIN_OPERATORS = st.sampled_from([op for op in grammar.OPERATORS if op not in ("in", "is", "like", "ilike")])


def parse(text: str) -> ParsedQuery:
    return parse_query(text.encode(), max_rows=1000)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.binary(max_size=300))
@example(b"or=" + b"(and" * 2_000)
@example(b"select=" + b"a(" * 2_000)
@example(b"a->b->c->d->e->f->g->h->i->j=eq.1")
@example(b"%22=eq.1&a=in.(%22")
def test_any_bytes_give_a_query_or_an_error_of_ours(query_string: bytes) -> None:
    with suppress(GateError):
        assert isinstance(parse_query(query_string, max_rows=10), ParsedQuery)


MARKS = st.lists(
    st.sampled_from([*'ab.,:()"\\!*->=&%2 \n', "eq.", "not.", "or=(", "select=", "in.(", "->>"]), max_size=40
).map("".join)


@given(MARKS)
def test_any_string_of_the_grammars_marks_gives_a_query_or_an_error_of_ours(text: str) -> None:
    with suppress(GateError):
        assert isinstance(parse(text), ParsedQuery)


@given(NAMES, PLAIN_OPERATORS, st.booleans(), VALUES)
def test_a_filter_is_read_back_whatever_its_name_and_value(name: str, operator: str, negated: bool, value: str) -> None:
    parsed = parse(urlencode({quoted(name): f"{'not.' if negated else ''}{operator}.{value}"}))

    assert parsed.query.where == (Condition(Field(name), operator, negated, 0),)
    assert parsed.values == [value.encode()]


@given(st.lists(st.tuples(NAMES, PLAIN_OPERATORS, VALUES), min_size=1, max_size=5), st.sampled_from(["and", "or"]))
def test_a_logic_tree_is_read_back(children: list[tuple[str, str, str]], operator: str) -> None:
    text = ",".join(f"{quoted(name)}.{op}.{quoted(value)}" for name, op, value in children)

    parsed = parse(f"{operator}={quote(f'({text})', safe='')}")

    conditions = tuple(Condition(Field(name), op, False, slot) for slot, (name, op, _) in enumerate(children))
    assert parsed.query.where == (Logic(operator, False, conditions),)  # type: ignore[arg-type]
    assert parsed.values == [value.encode() for _, _, value in children]


@given(st.lists(VALUES, max_size=6))
def test_a_list_becomes_one_array_literal(values: list[str]) -> None:
    text = "(" + ",".join(map(quoted, values)) + ")"

    parsed = parse("a=" + quote(f"in.{text}", safe=""))

    escaped = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    assert parsed.values == ["{{{}}}".format(",".join(f'"{value}"' for value in escaped)).encode()]


@given(st.lists(st.tuples(NAMES, st.booleans(), st.sampled_from([None, "first", "last"])), min_size=1, max_size=5))
def test_order_is_read_back(terms: list[tuple[str, bool, str | None]]) -> None:
    text = ",".join(
        f"{quoted(name)}{'.desc' if descending else ''}{f'.nulls{nulls}' if nulls else ''}"
        for name, descending, nulls in terms
    )

    parsed = parse(urlencode({"order": text}))

    assert parsed.query.order == tuple(Sort(Field(name), down, nulls) for name, down, nulls in terms)  # type: ignore[arg-type]


@given(VALUES, VALUES)
def test_requests_that_differ_in_values_only_share_one_shape(first: str, second: str) -> None:
    shapes = [
        parse(urlencode({"id": f"eq.{value}", "or": f"(a.gt.{quoted(value)},b.is.null)", "limit": "3"})).query
        for value in (first, second)
    ]

    assert shapes[0] == shapes[1]
    assert hash(shapes[0]) == hash(shapes[1])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("&".join(["a=eq.1"] * 101), TooMuch),
        ("or=(" + ",".join(["a.eq.1"] * 101) + ")", TooMuch),
        ("a=in.(" + ",".join(["1"] * 1001) + ")", TooMuch),
        ("and=" + "(and" * 9 + "(a.eq.1" + ")" * 10, TooMuch),
        ("select=" + ",".join(["a"] * 201), TooMuch),
        ("select=" + ",".join(f"t{n}(*)" for n in range(11)), TooMuch),
        ("order=" + ",".join(["a"] * 21), TooMuch),
        ("a" + "->b" * 9 + "=eq.1", TooMuch),
        ("a=eq." + "x" * 16_384, UrlTooLong),
        ("airlines.name=eq.x", NotEmbedded),
        ("select=airlines(*)&airlines.flights.id=eq.1", InvalidQuery),
        ("on_conflict=id", InvalidQuery),
        ("limit=1.5", InvalidQuery),
        ("limit=٣", InvalidQuery),
        ("offset=" + "9" * 19, InvalidQuery),
    ],
)
def test_limits_and_refusals(text: str, error: type[GateError]) -> None:
    with pytest.raises(error):
        parse(text)


def test_an_embed_takes_its_filters_order_and_window_by_alias() -> None:
    parsed = parse("select=id,x:flights!fk(id)&x.dest=eq.SEA&x.order=id.desc&x.limit=7&x.offset=2&id=gt.3")

    embed = parsed.query.select[1]
    assert (embed.target, embed.hint) == ("flights", "fk")  # type: ignore[union-attr]
    assert embed.query.where[0].field.name == "dest"  # type: ignore[union-attr]
    assert parsed.values[embed.limit_slot] == b"7"  # type: ignore[union-attr]
    assert len(parsed.query.where) == 1
