"""Commands: typed questions and orders to the node, each with exactly one handler.

A command is a frozen Struct whose class says its name, what it answers with, which capability it asks for and whether
it is audited. The control socket, the console and other components reach handlers only through the command bus, so
every order passes one gate and leaves one record. Boundary: declarations only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol, TypeVar

from msgspec import Struct

from magmobo.contracts.capabilities import Actor


class Command(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every command. Names are `noun:verb`, as `mag` spells them.

    `capability`: what the actor must hold; empty: whoever was let in at a door. `audit_action`: entry of the audit
    catalogue, written before the handler runs; empty: not audited. `dry_run`: whether the handler understands
    `Call.dry_run`; asking another for a dry run is refused.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    capability: ClassVar[str] = ""
    audit_action: ClassVar[str] = ""
    reply: ClassVar[Any] = None
    dry_run: ClassVar[bool] = False


class Call(Struct, frozen=True, kw_only=True):
    """Around one command: who asks, until when, under which trace. `deadline_s` is of the node's monotonic clock."""

    actor: Actor
    trace_id: str
    deadline_s: float
    dry_run: bool = False
    idempotency_key: str = ""


C = TypeVar("C", bound=Command)
CommandHandler = Callable[[C, Call], Awaitable[Any]]


class CommandRegistration(Protocol):
    """One handler for one command."""

    def cancel(self) -> None:
        """Answer no more; calling it twice is fine."""
        ...


class Commands(Protocol):
    """The command bus as a component or a door sees it."""

    def handle(self, command_type: type[C], handler: CommandHandler[C]) -> CommandRegistration:
        """Answer every command of this type. The registration belongs to whoever made it and dies with it.

        Raises: CommandTaken when another handler is there, ValueError for a class without name or reply.
        """
        ...

    async def call(self, command: Command, *, timeout_s: float = 30.0) -> Any:
        """Ask as the owner of this view; what comes back is an instance of the command's `reply`.

        Raises: CommandUnknown, CapabilityDenied, DeadlineExceeded, AuditUnavailable, and whatever the handler raises.
        """
        ...
