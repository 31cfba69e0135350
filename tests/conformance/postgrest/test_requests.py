"""Requests and the answers PostgREST documents for them, over a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from msgspec import Struct
from tests.integration.maggate.support import Stack, bearer, load_rows, load_schema, running_stack

from magmobo.testing.postgres import PostgresServer

USER = bearer(role="gate_user", sub="ann")
OBJECT = {"Accept": "application/vnd.pgrst.object+json"}
FULL = {"Prefer": "return=representation"}


@pytest.fixture(scope="module")
def schema_dsn(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as dsn:
        load_schema(dsn)
        yield dsn


@pytest.fixture
async def stack(schema_dsn: str) -> AsyncIterator[Stack]:
    async with running_stack(schema_dsn) as stack:
        yield stack


class Read(Struct):
    """GET `path` gives `status` and `body`; for errors `body` is the `code`. `headers` must be in the answer."""

    path: str
    body: Any
    status: int = 200
    headers: dict[str, str] = {}
    send: dict[str, str] = {}


def ids(*numbers: int) -> list[dict[str, int]]:
    return [{"id": number} for number in numbers]


READS = [
    # operators
    Read("flights?select=id&id=eq.1", ids(1)),
    Read("flights?select=id&id=neq.1&order=id", ids(2, 3, 4)),
    Read("flights?select=id&id=gt.2&order=id", ids(3, 4)),
    Read("flights?select=id&id=gte.3&order=id", ids(3, 4)),
    Read("flights?select=id&id=lt.2", ids(1)),
    Read("flights?select=id&id=lte.2&order=id", ids(1, 2)),
    Read("flights?select=id&dep_delay=eq.-3", ids(4)),
    Read("airports?select=faa&name=like.*e*&order=faa", [{"faa": "JFK"}, {"faa": "LAX"}, {"faa": "SEA"}]),
    Read("airports?select=faa&name=like.s*", []),
    Read("airports?select=faa&name=ilike.s*", [{"faa": "SEA"}]),
    Read("airports?select=faa&name=like.S%25", [{"faa": "SEA"}]),
    Read("flights?select=id&id=in.(1,3)&order=id", ids(1, 3)),
    Read("flights?select=id&id=in.()", []),
    Read("flights?select=id&dest=in.(SEA,%22JFK%22)&order=id", ids(1, 3, 4)),
    Read("flights?select=id&tags=in.(%22{a,b}%22)", ids(1)),
    Read("flights?select=id&tags=eq.{a,b}", ids(1)),
    Read("flights?select=id&carrier=is.null", ids(4)),
    Read("flights?select=id&carrier=is.not_null&order=id", ids(1, 2, 3)),
    Read("flights?select=id&carrier=not.is.null&order=id", ids(1, 2, 3)),
    Read("flights?select=id&carrier=is.NULL", ids(4)),
    Read("flights?select=id&id=not.in.(1,2,3)", ids(4)),
    Read("flights?select=id&id=not.eq.1&id=not.eq.2&order=id", ids(3, 4)),
    Read("flights?select=id&mood=eq.calm&order=id", ids(1, 4)),
    Read("flights?select=id&price=eq.10.5", ids(1)),
    Read("flights?select=id&left_at=gte.2013-01-02T00:00:00%2B00:00&order=id", ids(2, 4)),
    Read("flights?select=id&code=eq.longer-than-four", []),
    Read("employees?select=name&id=eq.1", [{"name": "Ada"}]),
    # logic
    Read("flights?select=id&or=(id.eq.1,id.eq.4)&order=id", ids(1, 4)),
    Read("flights?select=id&and=(id.gte.2,dest.eq.SEA)", ids(3)),
    Read("flights?select=id&not.or=(id.eq.1,id.eq.4)&order=id", ids(2, 3)),
    Read("flights?select=id&not.and=(id.gte.2,id.lte.3)&order=id", ids(1, 4)),
    Read("flights?select=id&or=(id.eq.1,and(id.gt.1,dest.not.eq.SEA,not.or(id.eq.4)))&order=id", ids(1, 2)),
    Read("flights?select=id&or=(dest.in.(LAX,%22JFK%22),carrier.is.null)&order=id", ids(2, 4)),
    Read("flights?select=id&or=(tags.eq.{a,b},id.eq.2)&order=id", ids(1, 2)),
    Read("flights?select=id&or=(dest.eq.%22SEA%22)&order=id", ids(1, 3)),
    # select
    Read("airlines?carrier=eq.UA", [{"carrier": "UA", "name": "United"}]),
    Read("airlines?select=*&carrier=eq.UA", [{"carrier": "UA", "name": "United"}]),
    Read("airlines?select=title:name&carrier=eq.UA", [{"title": "United"}]),
    Read("flights?select=id::text,price::int&id=eq.1", [{"id": "1", "price": 11}]),
    Read("flights?select=nr:id::text&id=eq.1", [{"nr": "1"}]),
    Read("flights?select=data->>gate&id=eq.1", [{"gate": "B7"}]),
    Read("flights?select=data->seats->1,x:data->deep->>x&id=eq.1", [{"seats": 2, "x": "1"}]),
    Read("flights?select=tags->0&id=eq.1", [{"tags": "a"}]),
    Read("flights?select=id&data->>gate=eq.C1", ids(3)),
    Read("flights?select=id&data->deep->x=eq.1", ids(1)),
    Read("flights?select=id&data->>gate=not.is.null&order=data->>gate.desc", ids(3, 1)),
    Read("documents?select=body", [{"body": {"b": 1, "a": 2}}]),
    Read("flights?select=id,price,tags,left_at&id=eq.1",
         [{"id": 1, "price": 10.50, "tags": ["a", "b"], "left_at": "2013-01-01T05:00:00+00:00"}]),
    # order
    Read("flights?select=id&order=dep_delay", ids(4, 1, 3, 2)),
    Read("flights?select=id&order=dep_delay.nullsfirst", ids(2, 4, 1, 3)),
    Read("flights?select=id&order=dep_delay.desc", ids(2, 3, 1, 4)),
    Read("flights?select=id&order=dep_delay.desc.nullslast", ids(3, 1, 4, 2)),
    Read("flights?select=id&order=carrier.asc.nullslast,id.desc", ids(2, 3, 1, 4)),
    # names that need quotes
    Read("Weird%20Table?select=%22quote%5C%22d%22,Some%20Column&order=%22quote%5C%22d%22.desc",
         [{'quote"d': 2, "Some Column": "c"}, {'quote"d': 1, "Some Column": "a,b"}]),
    Read("Weird%20Table?select=Some%20Column&%22dot.ted%22=eq.d", [{"Some Column": "a,b"}]),
    Read("Weird%20Table?select=Some%20Column&Some%20Column=in.(%22a,b%22)", [{"Some Column": "a,b"}]),
    Read("Weird%20Table?select=%22naïve, (col)'%5C%5Cx%22&%22order%22=eq.7", [{"naïve, (col)'\\x": "n"}]),
    Read("Weird%20Table?select=x:%22order%22,%22naïve, (col)'%5C%5Cx%22&%22order%22=eq.7",
         [{"x": 7, "naïve, (col)'\\x": "n"}]),
    Read("no%20columns", []),
    Read("late_flights", [{"id": 3, "dest": "SEA", "dep_delay": 60}]),
    Read("parts", [{"id": 1, "region": "eu"}]),
    Read("items", [{"id": 1, "name": "hat"}], send={"Accept-Profile": "shop"}, headers={"content-profile": "shop"}),
    # embedding
    Read("flights?select=id,airlines(name)&id=eq.1", [{"id": 1, "airlines": {"name": "United"}}]),
    Read("flights?select=id,airlines(*)&id=eq.4", [{"id": 4, "airlines": None}]),
    Read("flights?select=id,line:airlines(title:name)&id=eq.1", [{"id": 1, "line": {"title": "United"}}]),
    Read("flights?select=id,carrier(name)&id=eq.1", [{"id": 1, "carrier": {"name": "United"}}]),
    Read("airlines?select=carrier,flights(id)&carrier=neq.AA&order=carrier.desc&flights.order=id.desc",
         [{"carrier": "ZZ", "flights": []}, {"carrier": "UA", "flights": ids(3, 1)}]),
    Read("airlines?select=carrier,f:flights(id)&f.dest=eq.SEA&f.order=id&f.limit=1&f.offset=1&carrier=eq.UA",
         [{"carrier": "UA", "f": ids(3)}]),
    Read("airlines?select=carrier,flights!inner(id)&flights.id=eq.2", [{"carrier": "AA", "flights": ids(2)}]),
    Read("airlines?select=carrier,flights!inner()&flights.id=eq.2", [{"carrier": "AA"}]),
    Read("airlines?select=carrier,flights(id)&flights.or=(id.eq.1,id.eq.2)&order=carrier",
         [{"carrier": "AA", "flights": ids(2)}, {"carrier": "UA", "flights": ids(1)},
          {"carrier": "ZZ", "flights": []}]),
    Read("flights?select=id,airports!flights_origin_fkey(faa)&id=eq.1", [{"id": 1, "airports": {"faa": "JFK"}}]),
    Read("flights?select=id,airports!dest(faa)&id=eq.1", [{"id": 1, "airports": {"faa": "SEA"}}]),
    Read("flights?select=id,o:airports!origin(faa),d:airports!dest(faa)&id=eq.1",
         [{"id": 1, "o": {"faa": "JFK"}, "d": {"faa": "SEA"}}]),
    Read("airports?select=faa,flights!flights_dest_fkey(id)&faa=eq.LAX", [{"faa": "LAX", "flights": ids(2)}]),
    Read("airlines?select=name,airline_details(motto)&carrier=eq.UA",
         [{"name": "United", "airline_details": {"motto": "up"}}]),
    Read("employees?select=name,boss:manager_id(name)&id=eq.2", [{"name": "Bob", "boss": {"name": "Ada"}}]),
    Read("employees?select=name,employees(name)&id=eq.1&employees.order=id",
         [{"name": "Ada", "employees": [{"name": "Bob"}, {"name": "Cyd"}]}]),
    Read("lines?select=item,orders(note)&id=eq.3", [{"item": "saw", "orders": {"note": "other"}}]),
    Read("orders?select=note,lines(item)&region=eq.eu&lines.order=id",
         [{"note": "first", "lines": [{"item": "nut"}, {"item": "bolt"}]}]),
    # windows
    Read("flights?select=id&order=id&limit=2", ids(1, 2), headers={"content-range": "0-1/*"}),
    Read("flights?select=id&order=id&limit=2&offset=1", ids(2, 3), headers={"content-range": "1-2/*"}),
    Read("flights?select=id&order=id&limit=0", [], headers={"content-range": "*/*"}),
    Read("flights?select=id&order=id", ids(2, 3), send={"Range": "1-2"}, headers={"content-range": "1-2/*"}),
    Read("flights?select=id&order=id", ids(3, 4), send={"Range": "2-", "Range-Unit": "items"}),
    Read("flights?select=id&order=id&limit=1", ids(2), send={"Range": "1-2"}),
    Read("flights?select=id&order=id", ids(1, 2, 3, 4), send={"Range": "bytes=0-10"}),
    Read("flights?select=id&order=id&limit=2", ids(1, 2), 206, {"content-range": "0-1/4"}, {"Prefer": "count=exact"}),
    Read("flights?select=id&order=id", ids(1, 2, 3, 4), 200,
         {"content-range": "0-3/4", "preference-applied": "count=exact"}, {"Prefer": "count=exact"}),
    Read("flights?select=id&order=id&offset=4", [], 206, {"content-range": "*/4"}, {"Prefer": "count=exact"}),
    Read("flights?offset=5", "PGRST103", 416, {"content-range": "*/4"}, {"Prefer": "count=exact"}),
    Read("flights", "PGRST103", 416, send={"Range": "3-1"}),
    Read("airlines?select=carrier,flights!inner(id)&flights.id=eq.2", [{"carrier": "AA", "flights": ids(2)}],
         headers={"content-range": "0-0/1"}, send={"Prefer": "count=exact"}),
    # media types
    Read("airlines?carrier=eq.UA", {"carrier": "UA", "name": "United"}, send=OBJECT,
         headers={"content-type": "application/vnd.pgrst.object+json; charset=utf-8"}),
    Read("airlines?select=t:name&carrier=eq.UA", {"t": "United"}, send=OBJECT),
    Read("airlines", "PGRST116", 406, send=OBJECT),
    Read("airlines?carrier=eq.none", "PGRST116", 406, send=OBJECT),
    Read("airlines?carrier=eq.UA", [{"carrier": "UA", "name": "United"}],
         send={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
         headers={"content-type": "application/json; charset=utf-8"}),
    Read("airlines", "PGRST107", 406, send={"Accept": "text/csv"}),
    Read("airlines", "PGRST107", 406, send={"Accept": "application/json;q=0"}),
    # names and values that are wrong
    Read("nothing_like_it", "PGRST205", 404),
    Read("parts_eu", "PGRST205", 404),
    Read("items", "PGRST205", 404),
    Read("items", "PGRST106", 406, send={"Accept-Profile": "private"}),
    Read("rpc/now", "PGRST125", 404),
    Read("flights?nope=eq.1", "42703", 400),
    Read("flights?select=nope", "42703", 400),
    Read("flights?order=nope", "42703", 400),
    Read("flights?select=id,airlines(nope)", "42703", 400),
    Read("flights?select=airports(*)", "PGRST201", 300),
    Read("flights?select=employees(*)", "PGRST200", 400),
    Read("flights?select=airlines!nope(*)", "PGRST200", 400),
    Read("flights?airlines.name=eq.x", "PGRST108", 400),
    Read("flights?id=1", "PGRST100", 400),
    Read("flights?id=is.maybe", "PGRST100", 400),
    Read("flights?id=zz.1", "PGRST100", 400),
    Read("flights?id=in.1,2", "PGRST100", 400),
    Read("flights?id=in.(1,2", "PGRST100", 400),
    Read("flights?or=(id.eq.1", "PGRST100", 400),
    Read("flights?or=()", "PGRST100", 400),
    Read("flights?select=id,(", "PGRST100", 400),
    Read("flights?select=id.sum()", "PGRST100", 400),
    Read("flights?select=...airlines(name)", "PGRST100", 400),
    Read("flights?select=id::regclass", "PGRST100", 400),
    Read("flights?select=airlines(flights(id))", "PGRST100", 400),
    Read("flights?select=airlines(name),airlines(carrier)", "PGRST100", 400),
    Read("flights?limit=-1", "PGRST100", 400),
    Read("flights?limit=1&limit=2", "PGRST100", 400),
    Read("flights?order=id.sideways", "PGRST100", 400),
    Read("flights?columns=id", "PGRST100", 400),
    Read("flights?id=eq.%00", "PGRST100", 400),
    Read("flights?id=eq.%FF", "PGRST100", 400),
    Read("flights?id=eq.x", "22P02", 400),
    Read("flights?mood=eq.angry", "22P02", 400),
    Read("flights?left_at=eq.yesteryear", "22007", 400),
    Read("flights?id=eq.99999999999999999999", "22003", 400),
    Read("flights?dep_delay=like.5", "42883", 400),
    Read("documents?body=eq.{}", "42883", 400),
    Read("flights", "PGRST122", 400, send={"Prefer": "handling=strict, count=guess"}),
    Read("secrets", "42501", 401, {"www-authenticate": "Bearer"}),
    Read("secrets", "42501", 403, send=USER),
    Read("secrets?hidden=eq.1", "42501", 401),
    Read("secrets?hidden_value=eq.1", "42501", 401),
    Read("partial?select=id,shown", [{"id": 1, "shown": "s"}]),
    Read("partial?select=hidden", "42501", 401),
    Read("flight_counts", "55000", 400),
]  # fmt: skip


@pytest.mark.parametrize("case", READS, ids=lambda case: f"{case.path}{case.send or ''}")
async def test_read(stack: Stack, case: Read) -> None:
    answer = await stack.get(case.path, case.send)

    if isinstance(case.body, str):
        assert answer.json["code"] == case.body, answer.body
        assert answer.json["mag_code"].startswith("MAG-GATE-0")
        assert answer.headers["content-type"].startswith("application/problem+json")
    else:
        assert answer.json == case.body
    assert answer.status == case.status
    assert case.headers.items() <= answer.headers.items()
    head = await stack.ask("HEAD", case.path, headers=case.send)
    assert (head.body, head.status) == (b"", case.status if "object" not in str(case.send) else head.status)


class Change(Struct):
    """A write by `gate_user`; `check` is a read afterwards with its result."""

    method: str
    path: str
    content: Any
    status: int
    body: Any = b""
    headers: dict[str, str] = {}
    send: dict[str, str] = {}
    check: tuple[str, Any] = ("", None)


NEW = {"carrier": "NW", "name": "New"}
CHANGES = [
    Change("POST", "airlines", NEW, 201, headers={"content-range": "*/*"}, check=("airlines?carrier=eq.NW", [NEW])),
    Change("POST", "airlines", NEW, 201, [NEW], send=FULL,
           headers={"preference-applied": "return=representation", "content-type": "application/json; charset=utf-8"}),
    Change("POST", "airlines", NEW, 201, NEW, send=FULL | OBJECT),
    Change("POST", "airlines", NEW, 201, headers={"location": "/rest/v1/airlines?carrier=eq.NW"},
           send={"Prefer": "return=headers-only"}),
    Change("POST", "Weird%20Table", {"Some Column": "é &", 'quote"d': 3}, 201, send={"Prefer": "return=headers-only"},
           headers={"location": "/rest/v1/Weird%20Table?Some%20Column=eq.%C3%A9%20%26&quote%22d=eq.3"}),
    Change("POST", "airlines", [NEW, {"carrier": "N2", "name": "Two"}], 201, headers={"content-range": "*/2"},
           send={"Prefer": "count=exact"},
           check=("airlines?carrier=like.N*&select=carrier&order=carrier", [{"carrier": "N2"}, {"carrier": "NW"}])),
    Change("POST", "airlines?select=carrier", [NEW], 201, [{"carrier": "NW"}], send=FULL),
    Change("POST", "airlines?select=code:carrier,name", [NEW], 201, [{"code": "NW", "name": "New"}], send=FULL),
    Change("POST", "flights?select=id,airlines(name)", {"carrier": "UA"}, 201,
           [{"id": 100, "airlines": {"name": "United"}}], send=FULL),
    Change("POST", "flights?select=id", {}, 201, [{"id": 100}], send=FULL),
    Change("POST", "flights?select=tags,data,price", {"tags": ["x,", '"'], "data": {"k": [1]}, "price": 1.239}, 201,
           [{"tags": ["x,", '"'], "data": {"k": [1]}, "price": 1.24}], send=FULL),
    Change("POST", "airlines?columns=carrier,name", [NEW | {"other": 1}, {"carrier": "N2", "name": "N", "z": 2}], 201,
           check=("airlines?carrier=like.N*&select=carrier&order=carrier", [{"carrier": "N2"}, {"carrier": "NW"}])),
    Change("POST", "airlines", [], 201, [], send=FULL),
    Change("POST", "airlines", [NEW, {"carrier": "N2"}], 400, "PGRST102",
           check=("airlines?carrier=like.N*", [])),
    Change("POST", "airlines", {"carrier": "NW", "nope": 1}, 400, "PGRST204"),
    Change("POST", "airlines?columns=nope", NEW, 400, "PGRST204"),
    Change("POST", "airlines", 5, 400, "PGRST102"),
    Change("POST", "airlines", [1], 400, "PGRST102"),
    Change("POST", "airlines", [{}], 400, "PGRST102"),
    Change("POST", "airlines", b"{", 400, "PGRST102"),
    Change("POST", "airlines", b"", 400, "PGRST102"),
    Change("POST", "airlines", b"[" * 100_000, 400, "PGRST102"),
    Change("POST", "airlines", b'{"carrier": "\x00"}', 400, "PGRST102"),
    Change("POST", "airlines", b'{"carrier": "\\u0000", "name": ""}', 400, "22P05"),
    Change("POST", "airlines", b'{"carrier": "\xff", "name": ""}', 400, "22021"),
    Change("POST", "airlines", NEW, 415, "PGRST102", send={"Content-Type": "text/csv"}),
    Change("POST", "airlines", {"carrier": "UA", "name": "again"}, 409, "23505"),
    Change("POST", "airlines", {"carrier": "NW"}, 400, "23502"),
    Change("POST", "flights", {"carrier": "none"}, 409, "23503"),
    Change("POST", "flights", {"price": -1}, 400, "23514"),
    Change("POST", "flights", {"code": "longer"}, 400, "22001"),
    Change("POST", "flights", {"dep_delay": "x"}, 400, "22P02"),
    Change("POST", "airlines?carrier=eq.UA", NEW, 400, "PGRST100"),
    Change("POST", "secrets", {"id": 2}, 403, "42501"),
    Change("POST", "notes", {"id": 9, "owner": "bob"}, 403, "42501"),
    Change("POST", "late_flights", {"id": 9, "dep_delay": 99}, 201, check=("flights?id=eq.9&select=dep_delay", [
        {"dep_delay": 99}])),
    Change("PATCH", "airlines?carrier=eq.UA", {"name": "U"}, 204, headers={"content-range": "0-0/*"},
           check=("airlines?carrier=eq.UA", [{"carrier": "UA", "name": "U"}])),
    Change("PATCH", "airlines?carrier=eq.UA", {"name": "U"}, 200, [{"carrier": "UA", "name": "U"}], send=FULL),
    Change("PATCH", "flights?dest=eq.SEA&select=id", {"dep_delay": 1}, 200, ids(1, 3), {"content-range": "0-1/2"},
           {"Prefer": "return=representation, count=exact"}),
    Change("PATCH", "airlines?carrier=eq.none", {"name": "U"}, 204, headers={"content-range": "*/*"}),
    Change("PATCH", "airlines?carrier=eq.UA", {}, 204),
    Change("PATCH", "airlines?carrier=eq.UA&columns=name", {"name": "U", "carrier": "XX"}, 204,
           check=("airlines?carrier=eq.UA", [{"carrier": "UA", "name": "U"}])),
    Change("PATCH", "airlines", {"name": "U"}, 400, "21000",
           check=("airlines?name=eq.U", [])),
    Change("PATCH", "airlines?carrier=eq.UA&limit=1", {"name": "U"}, 400, "PGRST100"),
    Change("PATCH", "airlines?carrier=eq.UA", [{"name": "U"}], 400, "PGRST102"),
    Change("PATCH", "flights?id=eq.1", {"nope": "U"}, 400, "PGRST204"),
    Change("PATCH", "flights?nope=eq.1", {"carrier": "U"}, 400, "42703"),
    Change("PATCH", "flights?id=gte.1&select=id", {"dep_delay": 1}, 406, "PGRST116", send=FULL | OBJECT,
           check=("flights?dep_delay=eq.1", [])),
    Change("PATCH", "flights?id=eq.1&select=id", {"dep_delay": 1}, 200, {"id": 1}, send=FULL | OBJECT),
    Change("PATCH", "flights?id=gte.1", {"dep_delay": 1}, 400, "PGRST124",
           send={"Prefer": "handling=strict, max-affected=3"}, check=("flights?dep_delay=eq.1", [])),
    Change("PATCH", "flights?id=gte.1", {"dep_delay": 1}, 204,
           send={"Prefer": "handling=strict, max-affected=4"},
           headers={"preference-applied": "handling=strict, max-affected=4"}),
    Change("DELETE", "employees?id=eq.3", b"", 204, headers={"content-range": "*/*"},
           check=("employees?id=eq.3", [])),
    Change("DELETE", "employees?id=gt.1&select=id", b"", 200, ids(2, 3), send=FULL),
    Change("DELETE", "employees?id=gt.1", b"", 204, headers={"content-range": "*/2"}, send={"Prefer": "count=exact"}),
    Change("DELETE", "employees?id=not.is.null", b"", 204, check=("employees", [])),
    Change("DELETE", "employees", b"", 400, "21000"),
    Change("DELETE", "airlines?carrier=eq.UA", b"", 409, "23503"),
    Change("PUT", "airlines?carrier=eq.UA", NEW, 405, "PGRST117"),
    Change("POST", "airlines", NEW, 400, "PGRST122", send={"Prefer": "handling=strict, resolution=merge-duplicates"}),
    Change("POST", "airlines", NEW, 201, send={"Prefer": "resolution=merge-duplicates"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: f"{case.method} {case.path} {str(case.content)[:40]}")
async def test_change(stack: Stack, schema_dsn: str, case: Change) -> None:
    load_rows(schema_dsn)
    content = case.content if isinstance(case.content, bytes) else json.dumps(case.content)

    answer = await stack.ask(case.method, case.path, content, USER | case.send)

    if isinstance(case.body, bytes):
        assert answer.body == case.body
    elif isinstance(case.body, str):
        assert answer.json["code"] == case.body, answer.body
    else:
        assert answer.json == case.body
    assert answer.status == case.status
    assert case.headers.items() <= answer.headers.items()
    path, wanted = case.check
    if path:
        assert (await stack.get(path, USER)).json == wanted
    load_rows(schema_dsn)
