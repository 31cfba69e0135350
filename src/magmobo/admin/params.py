"""A command as it is sent to a node: what its fields are, without those that are as the node takes them anyway.

So a `mag` of today can ask a node of yesterday for whatever that can do: a field that it does not know, which commands
refuse, is sent only when it is wanted. Boundary: values alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from magmobo.contracts.commands import Command
from magmobo.contracts.secret import Secret


def params_of(command: Command) -> dict[str, Any]:
    """Its fields as JSON has them. One that equals its default is left out, as `omit_defaults` would not do for each:
    that looks for the same object.

    Secrets are in the clear: the control socket is the one place where they are sent so.
    """
    given: dict[str, Any] = msgspec.to_builtins(command, enc_hook=_revealed)
    for field in msgspec.structs.fields(command):
        if not field.required and _is_same(given[field.encode_name], _default(field)):
            del given[field.encode_name]
    return given


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return msgspec.to_builtins(made, enc_hook=_revealed)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return list(one) == list(other)  # the same in JSON
    return type(one) is type(other) and bool(one == other)  # false is not 0


def _revealed(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value).__name__)
