"""Who answers which command.

Invariant: one handler a command; a handler belongs to an owner, and after `cancel_all(owner)` none of that owner's is
found and none goes on running undisturbed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from magmobo.contracts.capabilities import CAPABILITIES
from magmobo.contracts.commands import Command, CommandHandler
from magmobo.contracts.errors import Unavailable
from magmobo.kernel.commands.decode import decode, decoder_for
from magmobo.kernel.commands.errors import CommandTaken, CommandUnknown

_NAME = r"[a-z][a-z0-9_-]{0,31}:[a-z][a-z0-9_-]{0,31}"


class Handler:
    """One registered handler; implements `contracts.commands.CommandRegistration`.

    `running`: the tasks in which its commands are led now, each with what interrupts it. `recorded`: gives what the
    audit log is told of a command.
    """

    __slots__ = ("_decoder", "_table", "active", "command_type", "function", "name", "owner", "recorded", "running")

    def __init__(
        self,
        table: HandlerTable,
        owner: str,
        command_type: type[Command],
        function: CommandHandler[Any],
        recorded: Callable[[Any], Command],
    ) -> None:
        self.owner, self.command_type, self.function, self.recorded = owner, command_type, function, recorded
        self.name, self.active = command_type.name, True
        self.running: dict[asyncio.Task[Any], asyncio.Future[BaseException]] = {}
        self._table = table
        self._decoder: msgspec.json.Decoder[Any] | None = None

    def cancel(self) -> None:
        """See `contracts.commands.CommandRegistration.cancel`; what runs may end."""
        if self.active:
            self.active = False
            self._table.forget(self)

    def revoke(self) -> None:
        """Answer no more, and interrupt what runs: its callers get Unavailable."""
        self.cancel()
        for interruption in self.running.values():
            if not interruption.done():
                interruption.set_result(Unavailable(f"the command {self.name}"))

    def began(self, task: asyncio.Task[Any], interruption: asyncio.Future[BaseException]) -> None:
        """A command is led in `task` from now on."""
        self.running[task] = interruption
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.running.pop(task, None)
        if not self.running:
            self._table.idle(self)

    def decode(self, params: bytes) -> Command:
        """The command. Raises: CommandTooLarge, CommandMalformed."""
        if self._decoder is None:  # made when it is needed first: building all of them would cost the boot
            self._decoder = decoder_for(self.command_type)
        return decode(self._decoder, params)


class HandlerTable:
    """The handlers of one node."""

    def __init__(self) -> None:
        self._by_name: dict[str, Handler] = {}
        self._running_of_cancelled: set[Handler] = set()

    def add(
        self,
        owner: str,
        command_type: type[Command],
        function: CommandHandler[Any],
        recorded: Callable[[Any], Command] | None = None,
    ) -> Handler:
        """Register. Raises: CommandTaken, ValueError for a class that is no proper command."""
        check_command_type(command_type)
        if taken := self._by_name.get(command_type.name):
            raise CommandTaken(command_type.name, taken.owner)
        handler = Handler(self, owner, command_type, function, recorded or _as_it_is)
        self._by_name[command_type.name] = handler
        return handler

    def find(self, name: str) -> Handler:
        """Raises: CommandUnknown, with the nearest name there is."""
        handler = self._by_name.get(name)
        if handler is None:
            raise CommandUnknown(name, self._nearest(name))
        return handler

    def forget(self, handler: Handler) -> None:
        """Take a cancelled handler out; what still runs of it is remembered for `cancel_all`."""
        del self._by_name[handler.name]
        if handler.running:
            self._running_of_cancelled.add(handler)

    def idle(self, handler: Handler) -> None:
        """Nothing of `handler` runs any more."""
        self._running_of_cancelled.discard(handler)

    def of(self, owner: str) -> list[Handler]:
        """Every handler of an owner that is registered or still runs."""
        return [handler for handler in (*self, *self._running_of_cancelled) if handler.owner == owner]

    def owners(self) -> set[str]:
        """Whoever has a handler that is registered or still runs."""
        return {handler.owner for handler in (*self, *self._running_of_cancelled)}

    def __iter__(self) -> Iterator[Handler]:
        return iter(sorted(self._by_name.values(), key=lambda handler: handler.name))

    def __len__(self) -> int:
        return len(self._by_name)

    def _nearest(self, name: str) -> str:
        import difflib  # only a mistake needs it

        near = difflib.get_close_matches(name[:80].replace(" ", ":"), self._by_name, n=1)
        return near[0] if near else ""


def _as_it_is(command: Command) -> Command:
    return command


def check_command_type(command_type: type[Command]) -> None:
    """Raises: ValueError that says what is wrong with the class."""
    config = command_type.__struct_config__
    if not re.fullmatch(_NAME, command_type.name):
        problem = "needs a name of the form noun:verb"
    elif not (isinstance(command_type.reply, type) and issubclass(command_type.reply, Struct)):
        problem = "needs a Struct as its reply"
    elif command_type.capability and command_type.capability not in CAPABILITIES:
        problem = f"asks for {command_type.capability}, which is not in the catalogue of capabilities"
    elif not (config.frozen and config.forbid_unknown_fields):
        problem = "must stay frozen and forbid unknown fields"
    elif config.array_like or config.tag is not None:
        problem = "must be a plain object in JSON"
    else:
        return
    raise ValueError(f"{command_type.__qualname__} {problem}")
