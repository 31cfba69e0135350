"""Text values as JSON; the comparison with a real server is in the integration tests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.magds.changes import json_values as j


@pytest.mark.parametrize(
    ("encoder", "value", "expected"),
    [
        (j.inexact_number, b"NaN", b'"NaN"'),
        (j.inexact_number, b"-Infinity", b'"-Infinity"'),
        (j.inexact_number, b"1e+20", b"1e+20"),
        (j.timestamp, b"infinity", b'"infinity"'),
        (j.timestamp, b"0044-03-15 12:00:00 BC", b'"0044-03-15T12:00:00 BC"'),
        (j.timestamptz, b"2026-11-22 15:00:00.5+00", b'"2026-11-22T15:00:00.5+00:00"'),
        (j.timestamptz, b"0044-03-15 12:00:00+00 BC", b'"0044-03-15T12:00:00+00:00 BC"'),
        (j.timestamptz, b"-infinity", b'"-infinity"'),
        (j.boolean, b"t", b"true"),
        (j.text, b"a\n\x01\"\\\x7f", b'"a\\n\\u0001\\"\\\\\x7f"'),
        (j.array_encoder(j.raw), b"[0:1]={1,NULL}", b"[1,null]"),
        (j.array_encoder(j.text), b'{{"NULL",NULL},{"a\\"\\\\",b c}}', b'[["NULL",null],["a\\"\\\\","b c"]]'),
        (j.array_encoder(j.text, ";"), b"{(1,1),(0,0);(3,3),(2,2)}", b'["(1,1),(0,0)","(3,3),(2,2)"]'),
        (j.array_encoder(j.raw), b"{}", b"[]"),
        (j.composite_encoder([("x", j.raw), ("y", j.text), ("z", j.text)]), b'(1,"a ""b"" \\\\",)',
         b'{"x":1,"y":"a \\"b\\" \\\\","z":null}'),
        (j.composite_encoder([("x", j.text)]), b'("")', b'{"x":""}'),
        (j.composite_encoder([("x", j.raw), ("y", j.raw)]), b"(1)", b'"(1)"'),
        (j.composite_encoder([("x", j.raw)]), b"(1,2)", b'"(1,2)"'),
    ],
)  # fmt: skip
def test_a_value_becomes_the_json_of_postgres(encoder: j.Encoder, value: bytes, expected: bytes) -> None:
    assert encoder(value) == expected


def quoted(value: str | None) -> str:
    return "NULL" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.none() | st.text(), max_size=6))
def test_arrays_of_any_text(values: list[str | None]) -> None:
    literal = "{" + ",".join(map(quoted, values)) + "}"
    assert json.loads(j.array_encoder(j.text)(literal.encode())) == values


def test_types_that_contain_themselves_end() -> None:
    facts = {1: j.TypeFacts(element_oid=1), 2: j.TypeFacts(base_oid=2), 3: j.TypeFacts(fields=(("x", 3),))}
    for oid in facts:
        assert j.make_encoder(oid, facts)(b"{}")
    assert j.make_encoder(99, facts)(b"x") == b'"x"'
