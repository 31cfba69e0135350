"""What of a command is sent: every command of the catalogue, with nothing said but what it cannot do without."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from msgspec import json
from msgspec.structs import FieldInfo, fields

from magmobo.admin.params import params_of
from magmobo.cli.schemadocs import COMMANDS
from magmobo.contracts.commands import Command
from magmobo.contracts.extensions import (
    ApproveExtension,
    EnableExtension,
    ExtensionEvents,
    ExtensionLogs,
    GrantCapability,
    TrustKeys,
)
from magmobo.contracts.secret import Secret
from magmobo.kernel.commands.decode import decode_special

WITH_OPTIONS = [one for one in COMMANDS if any(not field.required for field in fields(one))]


class Told(Command, frozen=True, kw_only=True):
    """Fields of every kind whose default is not nothing."""

    name = "test:told"
    loud: bool = True
    often: int = 0
    share: float = 0.0
    level: int | None = 3
    words: tuple[str, ...] = ("one",)
    facts: Mapping[str, Any] = {}
    key: Secret | None = None


def needed(field: FieldInfo) -> Any:
    """Any value that this field takes."""
    for value in (1, "a", "a.b", "a:b", "0" * 64, {}, {"a.b": "x"}, [], 1.5, "admin"):
        with suppress(ValueError, NotImplementedError):
            return msgspec.convert(value, field.type, dec_hook=decode_special)
    raise AssertionError(field.name)


def bare(command_type: type[Command]) -> Command:
    """With what it needs and nothing else."""
    return command_type(**{field.name: needed(field) for field in fields(command_type) if field.required})


def test_the_catalogue_has_commands_with_options() -> None:
    assert len(COMMANDS) > 40
    assert len(WITH_OPTIONS) > 15


@pytest.mark.parametrize("command_type", COMMANDS, ids=lambda one: one.name)
def test_what_nobody_said_is_not_sent(command_type: type[Command]) -> None:
    command = bare(command_type)
    sent = params_of(command)
    assert set(sent) == {field.encode_name for field in fields(command_type) if field.required}
    assert json.decode(json.encode(sent), type=command_type, dec_hook=decode_special) == command, "nothing is lost"


@pytest.mark.parametrize("command_type", WITH_OPTIONS, ids=lambda one: one.name)
def test_a_default_that_was_said_is_not_sent_either(command_type: type[Command]) -> None:
    """Also where it is another object of the same value, as what a person typed is."""
    command = bare(command_type)
    again = json.decode(
        json.encode(command, enc_hook=lambda one: one.reveal()), type=command_type, dec_hook=decode_special
    )
    assert params_of(again) == params_of(command)


def test_what_differs_is_sent_be_it_false_nothing_or_empty() -> None:
    assert params_of(Told()) == {}
    assert params_of(Told(loud=False, level=None, words=(), often=1, share=0.5)) == {
        "loud": False, "level": None, "words": (), "often": 1, "share": 0.5,
    }  # fmt: skip
    assert params_of(Told(loud=True, often=0, share=float("0"), level=3, words=("one",), facts={})) == {}
    assert params_of(Told(often=False)) == {"often": False}, "false is not zero"  # type: ignore[arg-type]
    assert params_of(Told(facts={"loud": False})) == {"facts": {"loud": False}}
    assert params_of(Told(key=Secret("correct horse"))) == {"key": "correct horse"}


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (EnableExtension(id="one"), {"id": "one"}),
        (EnableExtension(id="one", empty_files=True), {"id": "one", "empty_files": True}),
        (ExtensionEvents(id="one", retry=False, replay_s=float("0")), {"id": "one"}),
        (ExtensionLogs(id="one", limit=50), {"id": "one", "limit": 50}),
        (ExtensionLogs(id="one", limit=100), {"id": "one"}),
        (ApproveExtension(id="one", capabilities=[]), {"id": "one"}),
        (GrantCapability(id="one", wanted="a.b", scope={}, hours=""), {"id": "one", "wanted": "a.b"}),
        (GrantCapability(id="a", wanted="a.b", rate_per_minute=5), {"id": "a", "wanted": "a.b", "rate_per_minute": 5}),
        (TrustKeys(), {}),
    ],
)  # fmt: skip
def test_commands_of_extensions_are_as_short_as_they_can_be(command: Command, sent: dict[str, Any]) -> None:
    assert params_of(command) == sent
