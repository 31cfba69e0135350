"""Bytes from a door become a command, or one error that names everything wrong with them.

Boundary: no I/O; nothing of what was sent is shown but names of fields, cut short. msgspec stops at the first mistake,
so only the failing path goes over the fields one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from magmobo.contracts.commands import Command
from magmobo.contracts.secret import Secret
from magmobo.kernel.commands.errors import CommandMalformed, CommandTooLarge, shown

MAX_PARAMS_BYTES = 65_536
_MAX_PROBLEMS = 20


def decoder_for(command_type: type[Command]) -> msgspec.json.Decoder[Any]:
    """A strict decoder of the parameters of one command."""
    return msgspec.json.Decoder(command_type, dec_hook=decode_special)


def decode(decoder: msgspec.json.Decoder[Any], params: bytes) -> Command:
    """The command that `params`, JSON, stand for. Raises: CommandTooLarge, CommandMalformed."""
    command_type: type[Command] = decoder.type
    if len(params) > MAX_PARAMS_BYTES:
        raise CommandTooLarge(command_type.name, MAX_PARAMS_BYTES)
    try:
        command: Command = decoder.decode(params)
    except (ValueError, TypeError, RecursionError, NotImplementedError) as error:
        # Not `from error`: what msgspec says may quote what was sent, and a log shows the cause of an error too.
        problems = _problems(command_type, params, error)
    else:
        return command
    raise CommandMalformed(command_type.name, problems)


def decode_special(type_: type, value: Any) -> Any:
    """The types of ours that JSON does not know."""
    if type_ is Secret and isinstance(value, str):
        return Secret(value)
    if issubclass(type_, Path) and isinstance(value, str):
        return type_(value)
    raise ValueError("expected text" if type_ is Secret or issubclass(type_, Path) else f"no {type_.__name__} here")


def encode_special(value: Any) -> Any:
    """The way back, for answers; a secret stays one. Raises: NotImplementedError for what no answer may hold."""
    if isinstance(value, Secret):
        return "***"
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"an answer cannot hold {type(value).__name__}")


def masked(command: Command) -> dict[str, Any]:
    """The parameters of a command for the record: everything but what is a `Secret`."""
    params: dict[str, Any] = msgspec.to_builtins(command, enc_hook=_mask, str_keys=True)
    return params


def _mask(value: Any) -> str:
    return str(value) if isinstance(value, Path) else "***"


# ---------------------------------------------------------------- saying what is wrong


def _problems(command_type: type[Command], params: bytes, error: Exception) -> list[str]:
    """Everything wrong with `params`, in the order of the fields; `error` is what the decoder stumbled over first."""
    try:
        sent = msgspec.json.decode(params)
    except (ValueError, RecursionError) as broken:
        return [_not_json(broken)]
    if not isinstance(sent, dict):
        return ["expected one JSON object with the fields of the command"]
    found = list(_wrong_fields(command_type, sent))
    found = found or [_plain(str(error), "")]  # what spans several fields: the class's own `__post_init__`
    hidden = len(found) - _MAX_PROBLEMS
    return [*found[:_MAX_PROBLEMS], f"and {hidden} more"] if hidden > 0 else found


def _not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "the JSON is not UTF-8"
    return f"not JSON: {error}"  # says what and at which byte, quotes nothing


def _wrong_fields(command_type: type[Command], sent: Mapping[str, Any]) -> Iterator[str]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(command_type)}
    for name, field in fields.items():
        if name not in sent:
            if field.required:
                yield f"{name} is missing: expected {_expected(field.type)}"
            continue
        try:
            msgspec.convert(sent[name], field.type, dec_hook=decode_special)
        except (ValueError, TypeError, RecursionError, NotImplementedError) as error:
            yield _plain(str(error), name, field.type)
    for name in sent:
        if name not in fields:
            yield _unknown(name, fields)


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(name[:80], known, n=1)
    if near:
        return f'"{shown(name)}" is unknown; did you mean "{near[0]}"?'
    return f'"{shown(name)}" is unknown; ' + (f"known are {', '.join(known)}" if known else "it takes no fields")


def _plain(text: str, field: str, type_: Any = None) -> str:
    """What msgspec says, with the path as users write it and without the value it may quote."""
    said, _, where = text.partition(" - at `$")
    if said.startswith("Invalid enum value"):
        said = f"expected {_expected(type_)}" if not where or where == "`" else "not one of the values it may have"
    elif said.startswith("Object contains unknown field"):
        said = "holds a field that is unknown"
    path = f"{field}{where.rstrip('`')}"
    said = (said[:1].lower() + said[1:]).replace("`", "")
    return f"{path}: {said}" if path else said


def _expected(type_: Any) -> str:
    """A type in the words of JSON."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return _expected(arguments[0])
    if origin is Union or type(type_).__name__ == "UnionType":
        return " or ".join(dict.fromkeys(_expected(option) for option in arguments))
    if origin is Literal:
        return "one of " + ", ".join(_choice(choice) for choice in arguments)
    if isinstance(type_, type) and issubclass(type_, Enum):
        return "one of " + ", ".join(_choice(member.value) for member in type_)
    return _WORDS.get(type_, "what its schema says")


def _choice(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


_WORDS: dict[Any, str] = {
    str: "text",
    Secret: "text (a secret)",
    Path: "a path",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}
