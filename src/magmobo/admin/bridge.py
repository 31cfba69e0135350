"""Serves the few commands of a node that has no command bus yet. Goes away with the first node that has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from magmobo.admin.errors import CommandUnknown
from magmobo.contracts.planes import NodeStatus

_OLD = {"kernel:status": "status", "node:stop": "stop"}


class Bridge:
    """`Operators` over a table of functions."""

    def __init__(self, commands: Mapping[str, Callable[[], Any]]) -> None:
        self._commands = commands

    def status(self) -> NodeStatus:
        """How the node is, now."""
        status: NodeStatus = self._commands["status"]()
        return status

    def admin_token_matches(self, candidate: str) -> bool:
        """Nobody asks this here."""
        return False

    async def run(self, command: str, params: bytes = b"{}", **_more: Any) -> bytes:
        """Raises: CommandUnknown."""
        name = _OLD.get(command)
        if name is None:
            raise CommandUnknown(command)
        return msgspec.json.encode(self._commands[name]())
