from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.magws.errors import BadChannelName
from magmobo.components.magws.protocol import names
from magmobo.components.magws.protocol.closing import CloseCode, client_action
from magmobo.components.magws.tables import Filter, TableChannel, name_of, parse
from magmobo.contracts.planes import TableName

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=63)


@given(
    TEXT,
    TEXT,
    st.none() | st.builds(Filter, TEXT, st.text(st.characters(exclude_categories=["Cs"]), max_size=63)),
    st.booleans(),
)
def test_table_channels_round_trip(schema: str, table: str, chosen: Filter | None, private: bool) -> None:
    channel = TableChannel(TableName(schema, table), private, chosen)
    name = name_of(channel)
    assert parse(name) == channel
    assert re.fullmatch(r"[-A-Za-z0-9_=@,.;]+", name)
    assert names.is_table_channel(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("db.public.flights", TableChannel(TableName("public", "flights"), False)),
        ("private-db.s.t;dest=SEA", TableChannel(TableName("s", "t"), True, Filter("dest", "SEA"))),
        ("db.s.a@20b;c@2Ed=@C3@A9", TableChannel(TableName("s", "a b"), False, Filter("c.d", "é"))),
        ("db.s.t;c=", TableChannel(TableName("s", "t"), False, Filter("c", ""))),
    ],
)
def test_examples_of_table_channels(name: str, expected: TableChannel) -> None:
    assert parse(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "db.",
        "db.a",
        "db.a.b.c",
        "db.a.b;c",
        "db.a.b;=x",
        "db.a.b;c=d=e",
        "db.a.b@2",
        "db.a.b@zz",
        "db.a.@ff",
        "db.a.b\n",
    ],
)
def test_malformed_table_channels_are_refused(name: str) -> None:
    with pytest.raises(BadChannelName):
        parse(name)


@given(st.text())
def test_any_name_has_a_kind_or_is_refused(name: str) -> None:
    try:
        names.kind_of(name)
    except BadChannelName:
        return
    assert re.fullmatch(r"[-A-Za-z0-9_=@,.;]{1,1024}", name)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "#server-to-user-1", "a" * 201, "db." + "a" * 1024, "ü"])
def test_bad_names(name: str) -> None:
    with pytest.raises(BadChannelName):
        names.kind_of(name)


def test_kinds() -> None:
    assert names.kind_of("orders") is names.Kind.PUBLIC
    assert names.kind_of("private-orders") is names.Kind.PRIVATE
    assert {names.kind_of(n) for n in ("presence-a", "cache-a", "private-cache-a")} == {names.Kind.UNSUPPORTED}


def test_close_codes_order_what_they_should() -> None:
    actions = {code.name: client_action(code) for code in CloseCode}
    assert {name for name, action in actions.items() if action == "reconnect"} == {"RECONNECT", "NO_PONG"}
    assert {name for name, action in actions.items() if action == "back_off"} == {"OVER_CAPACITY"}
    assert "none" not in actions.values()
