"""The commands about extensions: each leads to one method of the plane. No decision is made here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from magmobo.contracts.commands import Call, Command, Commands
from magmobo.contracts.extensions import EXTENSION_COMMANDS

if TYPE_CHECKING:
    from magmobo.extensions.plane import Plane

PlaneSource = Callable[[], Awaitable["Plane"]]


def answer_commands(commands: Commands, plane: PlaneSource) -> None:
    """Answer every command about extensions with the plane's method of the same verb."""
    for command_type in EXTENSION_COMMANDS:
        verb = command_type.name.partition(":")[2]
        commands.handle(command_type, _handler(plane, verb))


def _handler(plane: PlaneSource, verb: str) -> Callable[[Command, Call], Awaitable[Any]]:
    async def handle(command: Command, call: Call) -> Any:
        # Bound by name, so that a node that is never asked imports nothing of the plane; a test asks each of them.
        method = getattr((await plane()).answers, verb)
        return await method(command, call)

    return handle
