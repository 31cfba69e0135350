"""Tells a service manager how the node is: systemd's notification protocol, one datagram a message.

Without a manager nothing is sent. A manager that is gone or does not read stops no node: news wait for it at most
`PATIENCE_S`, pings and texts not at all. The variables are taken out of the environment, so that children (the
database) do not speak for the node.
Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress

PATIENCE_S = 1.0
_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Speaks to the socket at `address` (a path, or an abstract name behind `@`); to nobody when it is empty.

    `watchdog_interval_s`: how often `ping` is to be called, half of what the manager waits; None when it does not.
    """

    def __init__(self, address: str = "", *, watchdog_interval_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_interval_s = watchdog_interval_s

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The one that the variables describe; they are removed from `environ`. Values that make no sense count as
        absent.
        """
        address, usec, pid = (environ.pop(name, "") for name in _NAMES)
        if not address.startswith(("/", "@")):
            return cls()
        is_ours = pid in ("", str(os.getpid()))
        is_set = usec.isascii() and usec.isdigit() and len(usec) < 20 and int(usec) > 0
        return cls(address, watchdog_interval_s=int(usec) / 2_000_000 if is_set and is_ours else None)

    def ready(self) -> None:
        """The node serves, for the first time or after `reloading`."""
        self._send("READY=1", PATIENCE_S)

    def reloading(self) -> None:
        """The node is about to boot again in place; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}", PATIENCE_S)

    def stopping(self) -> None:
        """The node has begun to drain."""
        self._send("STOPPING=1", PATIENCE_S)

    def status(self, text: str) -> None:
        """One line for people, shown by `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def ping(self) -> None:
        """The node is alive."""
        self._send("WATCHDOG=1")

    @asynccontextmanager
    async def pinging(self) -> AsyncIterator[None]:
        """Inside the block the manager is pinged as often as it wants to, by the loop: not while that hangs."""
        beats = asyncio.create_task(self._ping_for_ever(), name="node:watchdog") if self.watchdog_interval_s else None
        try:
            yield
        finally:
            if beats is not None:
                beats.cancel()
                await asyncio.wait({beats})

    async def _ping_for_ever(self) -> None:
        while self.watchdog_interval_s:
            self.ping()
            await asyncio.sleep(self.watchdog_interval_s)

    def _send(self, message: str, patience_s: float = 0.0) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.settimeout(patience_s)
            door.sendto(message.encode(errors="replace"), self._address)
