"""No text of a client reaches SQL, whatever it sends: values are parameters, names are the catalogue's."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.maggate.catalogue import Column, ForeignKey, Snapshot, Table
from magmobo.components.maggate.errors import GateError
from magmobo.components.maggate.grammar import parse_query
from magmobo.components.maggate.plan import CASTS, plan_read
from magmobo.components.maggate.sql import Compiled, compile_read
from magmobo.contracts.planes import TableName

NASTY = "we\"ird'\\; drop table x --"
A, B = TableName("public", "a"), TableName("public", NASTY)
KEY = ForeignKey("a_b_fkey", A, ("b_id",), B, ("id",))
COLUMNS = {name: Column(name, "text", is_json=name == "doc", is_array=name == "tags")
           for name in ("id", "b_id", "doc", "tags", NASTY)}  # fmt: skip
SNAPSHOT = Snapshot({
    A: Table(A, 1, "table", COLUMNS, ("id",), (KEY,), ()),
    B: Table(B, 2, "table", COLUMNS, ("id",), (), (KEY,)),
})  # fmt: skip

# Everything the compiler may write: its words, quoted catalogue names, parameters, and literals of catalogue names.
WORDS = set(
    re.findall(
        r"\w+",
        """select from where and or not order by desc nulls first last limit offset as any is null true false unknown
        exists coalesce pg_catalog count json_agg json_build_object row_to_json to_jsonb unnest text bigint integer json
        case when then else end pg_column_size jsonb like ilike t i _t _e _r _m e1 e2 e3 e4 e5 e6 e7 e8 e9 e10
        0 1 """
        + " ".join(CASTS.values()),
    )
)
TOKEN = re.compile(r'"(?:[^"]|"")*"|E?\'(?:[^\'\\]|\'\'|\\\\)*\'|\$\d+|[A-Za-z0-9_]+|[^A-Za-z0-9_"\'$]+')
QUOTED = {'"' + name.replace('"', '""') + '"' for name in [*COLUMNS, "a", NASTY, "public", "a_b_fkey"]}
LITERALS = {"'[]'", "'mag-size:'", *(f"'{name}'" for name in COLUMNS if name != NASTY), f"'{NASTY}'",
            "E'" + NASTY.replace("\\", "\\\\").replace("'", "''") + "'", "'a'"}  # fmt: skip

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=25)
HOSTILE = st.sampled_from(["'; drop table a; --", '"; --', "$1", "E'\\''", "1) or (1=1", "/*", "\\"]) | TEXT


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def fields(names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda name, path: quoted(name) + "".join(f"->>{quoted(key)}" for key in path),
        names,
        st.lists(HOSTILE.filter(bool), max_size=2),
    )


def selected(field: st.SearchStrategy[str], casts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    alias = st.just("") | HOSTILE.map(lambda text: quoted(text) + ":" if text else "")
    cast = st.just("") | casts.map(lambda text: f"::{quoted(text)}")
    return st.just("*") | st.builds(lambda *parts: "".join(parts), alias, field, cast)


@st.composite
def query_strings(draw: st.DrawFn, names: st.SearchStrategy[str], operators: st.SearchStrategy[str],
                  casts: st.SearchStrategy[str]) -> bytes:  # fmt: skip
    field = fields(names)
    items = draw(st.lists(selected(field, casts), min_size=1, max_size=4))
    for number, target in enumerate(draw(st.lists(st.sampled_from([NASTY, "b_id", "a_b_fkey"]), max_size=3))):
        inner = ",".join(draw(st.lists(selected(field, casts), max_size=2)))
        items.append(f"{quoted(f'x{number}')}:{quoted(target)}!{draw(st.sampled_from(['inner', 'left']))}({inner})")
    parameters = [("select", ",".join(items))]
    for _ in range(draw(st.integers(0, 3))):
        word, value = draw(operators), draw(HOSTILE)
        if word.endswith("is"):
            value = "null"
        parameters.append((draw(field), f"{word}.({quoted(value)})" if word.endswith("in") else f"{word}.{value}"))
    parameters.append(("order", ",".join(draw(st.lists(field, max_size=2)))))
    parameters.append(("or", f"({draw(field)}.eq.{quoted(draw(HOSTILE))},{draw(field)}.is.null)"))
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in parameters).encode()


KNOWN = st.sampled_from(list(COLUMNS))
OPERATORS = st.sampled_from(["eq", "neq", "gt", "like", "in", "is", "not.eq", "not.in"])


@given(query_strings(KNOWN, OPERATORS, st.sampled_from(list(CASTS))), st.booleans(), st.booleans())
def test_sql_is_made_of_our_words_and_catalogue_names_only(query_string: bytes, exact: bool, singular: bool) -> None:
    check_sql(compiled(query_string, exact=exact, singular=singular))


@given(query_strings(KNOWN | TEXT, OPERATORS | TEXT, st.sampled_from([*CASTS, "regclass"]) | TEXT))
def test_unknown_names_are_refused_or_harmless(query_string: bytes) -> None:
    with suppress(GateError):
        check_sql(compiled(query_string))


def compiled(query_string: bytes, *, exact: bool = False, singular: bool = False) -> Compiled:
    parsed = parse_query(query_string, max_rows=100)
    plan = plan_read(SNAPSHOT, SNAPSHOT.tables[A], parsed.query)
    return compile_read(plan, exact_count=exact, singular=singular, with_body=True)


def check_sql(statement: Compiled) -> None:
    sql = statement.sql.decode()
    tokens = TOKEN.findall(sql)
    assert "".join(tokens) == sql
    for token in tokens:
        if token[0] == '"':
            assert token in QUOTED
        elif token[0] == "'" or token.startswith("E'"):
            assert token in LITERALS
        elif token[0] == "$":
            assert 1 <= int(token[1:]) <= len(statement.slots)
        elif token[0].isalnum() or token[0] == "_":
            assert token in WORDS, token
        else:
            assert re.fullmatch(r"[\s.,()=<>:\[\]|*-]+", token), token


def test_every_parameter_is_used_and_numbered_in_order() -> None:
    statement = compiled(b"select=x:id,doc->>k&id=eq.1&tags=in.(a)&or=(id.gt.2,b_id.lt.3)", exact=True)

    used = {int(number) for number in re.findall(rb"\$(\d+)", statement.sql)}
    assert used == set(range(1, len(statement.slots) + 1))
    assert len(set(statement.slots)) == len(statement.slots)
