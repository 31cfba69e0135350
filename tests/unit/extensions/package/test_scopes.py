"""Words for tables, hosts, channels and topics: what is one, and which covers which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.extensions.package.making import calm

from magmobo.extensions.package.scopes import KINDS, covers, scope_problem, topic_words, topics_meet

GOOD = {
    "tables": ["public.flights", "app.Orders", "public.t(a,b)", "public.t( a , b )", "größe.zahl", "a.b-c"],
    "hosts": ["api.example.com", "*.example.com", "api.example.com:8443", "internal", "xn--bcher-kva.example"],
    "channels": ["orders", "private-ops", "presence-room.1", "orders-*", "*"],
    "topics": ["database.change", "database.*", "database.**", "**", "a.*.b"],
}
BAD = {
    "tables": [
        *("flights", "public.", ".x", "a.b.c", "public.t()", "public.t(a,)", "public.t(a,a)", "public.t(a", "*.*"),
        *("public.*", 'public."x"', "public.a;drop", "pg_catalog.pg_authid", "information_schema.tables", "mag.guest"),
        *("ext_other.secrets", "public.t\n", "public.t(a) ", "1.2", "a" * 70 + ".b"),
    ],
    "hosts": [
        *("*", "*.com", "a.*.com", "*example.com", "http://x.com", "x.com/", "x.com:0", "x.com:99999", "x.com:"),
        *("127.0.0.1", "10.1", "[::1]", "2130706433", "user@x.com", "API.example.com", "x..com", "-x.com", "x.com."),
        *("x.com\n", ""),
    ],
    "channels": ["private-db.public.users", "db.public.users", "a b", "a*b", "", "ü", "x" * 165, "db.*"],
    "topics": ["", ".", "a.", "A.b", "a.**.b", "a-b", "a b", "*a"],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in KINDS for text in GOOD[kind]])
def test_what_is_a_scope(kind: str, text: str) -> None:
    assert scope_problem(kind, text) is None
    assert covers(kind, text, text)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in KINDS for text in BAD[kind]])
def test_what_is_none(kind: str, text: str) -> None:
    assert scope_problem(kind, text)


@pytest.mark.parametrize(
    ("kind", "wide", "narrow"),
    [
        ("tables", "public.t", "public.t(a)"),
        ("tables", "public.t(a,b)", "public.t(b)"),
        ("hosts", "*.example.com", "api.example.com"),
        ("hosts", "*.example.com", "*.eu.example.com"),
        ("channels", "orders-*", "orders-7"),
        ("channels", "*", "orders-*"),
        ("topics", "database.**", "database.connection.failed"),
        ("topics", "database.**", "database.*"),
        ("topics", "**", "a.*.b"),
    ],
)
def test_the_wide_covers_the_narrow_and_not_the_other_way_round(kind: str, wide: str, narrow: str) -> None:
    assert covers(kind, wide, narrow)
    assert not covers(kind, narrow, wide)


@pytest.mark.parametrize(
    ("kind", "wide", "narrow"),
    [
        ("tables", "public.t(a)", "public.t(b)"),
        ("tables", "public.t", "app.t"),
        ("hosts", "*.example.com", "example.com"),
        ("hosts", "*.example.com", "badexample.com"),
        ("hosts", "x.com", "x.com:8443"),
        ("channels", "orders", "orders-7"),
        ("topics", "database.*", "database.connection.failed"),
        ("topics", "database.*", "database.**"),
    ],
)
def test_what_does_not_cover(kind: str, wide: str, narrow: str) -> None:
    assert not covers(kind, wide, narrow)


words = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3)
patterns = st.tuples(words, st.booleans()).map(lambda both: ".".join(both[0] + ["**"] * both[1]))
topics = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


@calm
@given(patterns, patterns, topics)
def test_a_pattern_that_covers_another_means_all_its_topics(wide: str, narrow: str, topic: str) -> None:
    if covers("topics", wide, narrow) and topics_meet(topic_words(narrow), topic):
        assert topics_meet(topic_words(wide), topic)


@calm
@given(st.sampled_from(KINDS), st.text(max_size=40) | st.text(alphabet="abc.-*:(),0123456789", max_size=20))
def test_any_text_is_a_scope_or_is_told_why_not(kind: str, text: str) -> None:
    problem = scope_problem(kind, text)
    assert problem is None or problem.strip()
