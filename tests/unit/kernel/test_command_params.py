"""Whatever bytes come in, a command or one coded error comes out that names the fields and quotes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.kernel.command_fakes import VIEWER, Enrol, Loose, Order, Ping, Pong, Room

from magmobo.contracts.commands import Command
from magmobo.contracts.errors import MagError
from magmobo.contracts.operations import OPERATIONS
from magmobo.kernel.commands.decode import MAX_PARAMS_BYTES, decode, decoder_for
from magmobo.kernel.commands.errors import CommandMalformed, CommandTooLarge
from magmobo.kernel.commands.schema import catalogue_of, schema_of

VALID = {"user": "ann", "password": "hunter2"}


def problems(params: bytes | dict[str, Any], command_type: type[Command] = Enrol) -> tuple[str, ...]:
    encoded = params if isinstance(params, bytes) else json.dumps(params).encode()
    with pytest.raises(CommandMalformed) as malformed:
        decode(decoder_for(command_type), encoded)
    assert (malformed.value.exit_code, malformed.value.http_status) == (2, 400)
    return malformed.value.problems


def test_every_mistake_is_named_at_once_in_the_order_of_the_fields() -> None:
    found = problems(
        {"user": "ANN!", "level": "middle", "role": "root", "share": 7, "tags": {"a": "b"}, "inner": {"value": "x"},
         "leve": 1, "anything": 2}
    )  # fmt: skip
    assert found == (
        "user: expected str matching regex '^[a-z]+$'",
        "password is missing: expected text (a secret)",
        'level: expected one of "low", "high"',
        'role: expected one of "viewer", "developer", "operator", "admin"',
        "share: expected float <= 1.0",
        "tags[...]: expected int, got str",
        "inner.value: expected int, got str",
        '"leve" is unknown; did you mean "level"?',
        '"anything" is unknown; known are user, password, level, role, share, tags, home, inner',
    )


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        (b"", "not JSON: Input data was truncated"),
        (b"{", "not JSON: Input data was truncated"),
        (b"[]", "expected one JSON object with the fields of the command"),
        (b"null", "expected one JSON object with the fields of the command"),
        (b'"text"', "expected one JSON object with the fields of the command"),
        (b'{"share": NaN}', "not JSON: JSON is malformed: invalid character (byte 10)"),
        (b'{"user": "\xff"}', "the JSON is not UTF-8"),
        (b"{} {}", "not JSON: JSON is malformed: trailing characters (byte 4)"),
        (b'{"x":' + b"[" * 20_000, "the JSON is nested too deeply"),
        (b'{"user": "\\ud800"}', "not JSON: Input data was truncated"),
        (
            b'{"user": "\\ud800abcdefghijkl"}',
            "not JSON: JSON is malformed: unexpected end of escaped utf-16 surrogate pair",
        ),
    ],
)
def test_what_is_no_object_is_said_in_words(params: bytes, problem: str) -> None:
    [found] = problems(params)
    assert found.startswith(problem)


def test_a_class_of_its_own_may_check_several_fields_at_once() -> None:
    class Range(Command, frozen=True, kw_only=True):
        name = "test:range"
        reply = Pong
        low: int = 0
        high: int = 0

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low must not be above high")

    assert problems({"low": 2, "high": 1}, Range) == ("low must not be above high",)


def test_ten_megabytes_are_refused_unread() -> None:
    with pytest.raises(CommandTooLarge) as large:
        decode(decoder_for(Enrol), b'{"user": "' + b"a" * 10_000_000 + b'"}')
    assert large.value.http_status == 413
    just_fits = b'{"value": 1}'.ljust(MAX_PARAMS_BYTES)
    assert decode(decoder_for(Ping), just_fits) == Ping(value=1)
    with pytest.raises(CommandTooLarge):
        decode(decoder_for(Ping), just_fits + b" ")


def test_a_flood_of_mistakes_is_cut_short() -> None:
    found = problems({**VALID, **{f"x{number}": 1 for number in range(500)}})
    assert len(found) == 21
    assert found[-1] == "and 480 more"
    [long] = problems({**VALID, "y" * 50_000: 1})
    assert len(long) < 200
    [odd] = problems({**VALID, "\x1b[2J\n": 1})
    assert odd.isprintable()


@pytest.mark.parametrize(
    "params",
    [
        {"user": "hunter2!", "password": ["hunter2"]},
        {"user": "ann", "password": {"hunter2": "hunter2"}},
        {**VALID, "level": "hunter2"},
        {**VALID, "role": "hunter2"},
        {**VALID, "tags": {"hunter2": "hunter2"}},
        {**VALID, "inner": {"value": 1, "hunter2": 1}},
        {**VALID, "home": ["hunter2"]},
    ],
)
def test_no_value_is_ever_quoted(params: dict[str, Any]) -> None:
    with pytest.raises(CommandMalformed) as malformed:
        decode(decoder_for(Enrol), json.dumps(params).encode())
    told = str(malformed.value) + repr(malformed.value.__cause__)
    assert "hunter2" not in told
    assert malformed.value.__cause__ is None


def test_the_actor_does_not_come_from_the_bytes() -> None:
    forged = {"value": 1, "actor": {"name": "kernel", "role": "admin", "via": "kernel"}, "call": {}, "trace_id": "x"}
    assert [problem.split(" ")[0] for problem in problems(forged, Order)] == ['"actor"', '"call"', '"trace_id"']


NAMES = ["user", "password", "after", "limit", "wait_s", "component", "value", "actor"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(NAMES), inner),
    max_leaves=12,
)
any_params = st.binary() | json_values.map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("command_type", [Enrol, Ping, Loose, *OPERATIONS], ids=lambda command_type: command_type.name)
@given(params=any_params)
@example(params=b"[" * 60_000)
@example(params=b'{"a":' * 10_000)
@example(params=b'{"after":' + b"9" * 60_000 + b"}")
@example(params=b"\x00")
@example(params=b"\xef\xbb\xbf{}")
def test_any_bytes_give_a_command_or_a_coded_error(command_type: type[Command], params: bytes) -> None:
    told = ""
    try:
        assert type(decode(decoder_for(command_type), params)) is command_type
    except (CommandMalformed, CommandTooLarge) as error:
        told = str(error)
    assert told.isprintable()
    assert len(told) < 8_000


@given(
    params=st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
    name=st.text() | st.just("test:ping"),
)
async def test_any_bytes_under_any_name_give_an_answer_or_a_coded_error(params: bytes, name: str) -> None:
    room, code = Room(), ""
    try:
        assert msgspec.json.decode(await room.bus.run(name, params, actor=VIEWER), type=Pong)
    except MagError as error:
        code = error.code
    assert code in ("", "MAG-CMD-001", "MAG-CMD-002")
    assert room.reports == []
    await room.settled()


async def test_a_number_too_large_for_the_machine_passes_through_everything() -> None:
    room = Room()
    number = 10**40
    answer = await room.bus.run("test:ping", b'{"value":%d}' % number, actor=VIEWER, idempotency_key="k")
    assert json.loads(answer)["value"] == number
    assert json.loads(await room.bus.run("test:ping", b'{"value":%d}' % number, actor=VIEWER, idempotency_key="k")) == (
        json.loads(answer)
    )
    assert len(room.calls) == 1


# ---------------------------------------------------------------- schemas


def test_the_catalogue_shows_every_command_with_schemas_that_stand_alone() -> None:
    catalogue = catalogue_of(OPERATIONS)
    assert [entry.name for entry in catalogue.commands] == [command_type.name for command_type in OPERATIONS]
    for entry in catalogue.commands:
        for schema in (entry.request, entry.reply):
            text = json.dumps(schema)
            for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
                assert reference.removeprefix("#/$defs/") in schema["$defs"], (entry.name, reference)
    by_name = {entry.name: entry for entry in catalogue.commands}
    assert (by_name["kernel:reset"].audited, by_name["kernel:reset"].dry_run) == (True, True)
    assert (by_name["kernel:status"].audited, by_name["kernel:status"].capability) == (False, "kernel.status.read")


def test_a_schema_says_what_a_command_accepts_and_hides_secrets() -> None:
    schema = schema_of(Enrol)["$defs"]["Enrol"]
    assert schema["required"] == ["user", "password"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["user"] == {"type": "string", "pattern": "^[a-z]+$", "maxLength": 8}
    assert schema["properties"]["password"] == {"type": "string", "writeOnly": True, "format": "password"}


def test_a_class_that_no_schema_can_describe_costs_the_others_nothing() -> None:
    class Odd(Command, frozen=True, kw_only=True):
        name = "test:odd"
        reply = Pong
        folder: Path = Path("/x")

    odd, ping = catalogue_of([Odd, Ping]).commands
    assert odd.request == {"type": "object", "title": "Odd"}
    assert "$defs" in ping.request


async def test_the_catalogue_of_a_bus_is_what_it_answers_now() -> None:
    room = Room()
    assert [entry.name for entry in room.bus.catalogue().commands] == [
        "test:enrol", "test:loose", "test:order", "test:ping"
    ]  # fmt: skip
    room.bus.cancel_all("tests")
    assert room.bus.catalogue().commands == []
