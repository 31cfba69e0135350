"""What the stream shows of a row is byte for byte what the server's own to_json shows."""

from __future__ import annotations

import random
from typing import Any

import psycopg
from psycopg import sql
from tests.integration.magds_changes.harness import execute, running, until

COLUMNS = {
    "b": "bool", "i2": "smallint", "i4": "int", "i8": "bigint", "f4": "real", "f8": "double precision", "n": "numeric",
    "t": "text", "v": "varchar(40)", "c": "char(5)", "j": "json", "jb": "jsonb", "d": "date", "ts": "timestamp",
    "tz": "timestamptz", "tm": "time", "ttz": "timetz", "iv": "interval", "u": "uuid", "by": "bytea", "ip": "inet",
    "m": "mood", "small": "small", "words": "words", "point": "point", "bx": "box[]", "rg": "int4range",
    "mr": "int4multirange", "pair": "pair", "pairs": "pair[]", "ai": "int[]", "at": "text[]", "aj": "jsonb[]",
    "atz": "timestamptz[]", "af": "float8[]", "am": "mood[]", "as_": "small[]", "oid_": "oid", "cash": "money",
    "bits": "varbit", "nm": "name", "x": "\"char\"", "rel": "regclass", "l": "lonely",
}  # fmt: skip
TEXTS = [
    "",
    "a",
    'quo"te',
    "back\\slash",
    "new\nline\t\r\b\f",
    "\x01\x1f\x7f",
    "é漢字🙂",
    "NULL",
    "{a,b}",
    "(x,y)",
    " ",
    ",",
]


def literal(kind: str, rng: random.Random) -> Any:
    number = rng.choice([0, 1, -1, rng.randint(-32768, 32767)])
    text = rng.choice(TEXTS) + rng.choice(TEXTS)
    when = rng.choice(["2026-11-22 15:00:00.123456", "1999-12-31 23:59:60", "infinity", "-infinity",
                       "0044-03-15 12:00:00 BC", "12345-06-07 01:02:03.5"])  # fmt: skip
    number_like = rng.choice(["NaN", "Infinity", "-Infinity", "0", "-0", "1e20", "1e-20", "123456.789", "0.1"])
    document = rng.choice(['{"a": [1, null, "x\\n"]}', "[]", "null", '"\\u00e9"', ' {"b":1,  "a":2}', "1.50"])
    array = kind.endswith("[]") and [
        None if rng.random() < 0.2 else literal(kind[:-2], rng) for _ in range(rng.randint(0, 4))
    ]
    fixed: dict[str, Any] = {
        "bool": rng.choice([True, False]), "smallint": number, "int": number, "bigint": number * 2**47,
        "real": number_like.replace("1e-20", "1e-5"), "double precision": number_like, "float8": number_like,
        "numeric": number_like, "text": text, "varchar(40)": text, "char(5)": rng.choice(["", "ab", "é"]),
        "json": document, "jsonb": document, "date": when.split(" ")[0] + (" BC" if "BC" in when else ""),
        "timestamp": when, "timestamptz": when + ("" if "inf" in when or "BC" in when else "+05:30"),
        "time": "12:34:56.7", "timetz": "12:34:56+02", "interval": rng.choice(["1 year -3 days 04:05:06.7", "0"]),
        "uuid": "12345678-1234-5678-1234-56781234567" + str(abs(number) % 10),
        "bytea": text.encode(), "inet": "10.0.0.0/8", "mood": rng.choice(["sad", 'very "glad"']), "small": number % 10,
        "words": "{a,NULL}", "point": "(1.5,2)", "box": "((1,1),(0,0))", "int4range": rng.choice(["[1,5)", "empty"]),
        "int4multirange": "{[1,3),[5,7)}", "oid": 4000000000, "money": "12.34", "varbit": "101", "name": "na me",
        '"char"': "x", "regclass": "pg_class", "lonely": "(x)",
    }  # fmt: skip
    if kind == "pair":
        return (number, None if rng.random() < 0.3 else text, [text, None], when)
    return array if array is not False else fixed[kind]


async def test_rows_read_like_to_json(dsn: str) -> None:
    execute(
        dsn,
        "create type mood as enum ('sad', 'very \"glad\"')",
        "create domain small as smallint check (value < 10)",
        "create domain words as text[]",
        'create type pair as (number int, "wo rd" text, many text[], at timestamp)',
        "create type lonely as (alone text)",
        "create table t (id int primary key, " + ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items()) + ")",
        "alter database " + psycopg.conninfo.conninfo_to_dict(dsn)["dbname"] + " set datestyle = 'German'",
    )
    rng = random.Random(7)
    with psycopg.connect(dsn, autocommit=True) as client:
        client.execute("set timezone to 'UTC'; set datestyle to 'ISO'")
        async with running(dsn, "t") as node:
            for number in range(60):
                values = [None if rng.random() < 0.1 else literal(kind, rng) for kind in COLUMNS.values()]
                client.execute(inlined(number, values))
            await until(lambda: len(node.changes) == 60, "all rows")
        rows = client.execute("select to_json(r)::text from t as r order by id").fetchall()
    for change, (expected,) in zip(node.changes, rows, strict=True):
        assert change.record is not None
        assert bytes(change.record).decode() == expected


def inlined(number: int, values: list[Any]) -> sql.Composed:
    """One INSERT with every value as a literal of its column's type."""
    parts = [sql.SQL("{}").format(number)]
    for value, kind in zip(values, COLUMNS.values(), strict=True):
        parts.append(sql.SQL("{}::" + kind).format(expression(value, kind)))  # type: ignore[arg-type]
    return sql.SQL("insert into t values ({})").format(sql.SQL(", ").join(parts))


def expression(value: Any, kind: str) -> sql.Composable:
    if value is None:
        return sql.SQL("null")
    if kind.endswith("[]"):
        inner = [expression(item, kind[:-2]) for item in value]
        return sql.SQL("array[{}]::" + kind).format(sql.SQL(", ").join(inner))  # type: ignore[arg-type]
    if kind == "pair":
        first, second, many, at = value
        return sql.SQL("row({}, {}, {}::text[], {})::pair").format(first, second, sql.Literal(many), at)
    return sql.SQL("{}").format(value if isinstance(value, bytes | bool | int) else str(value))
