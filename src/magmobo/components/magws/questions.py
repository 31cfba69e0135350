"""Subscriptions that wait until extensions have answered.

While a client waits its later messages are held, so that it is served in the order in which it asked; the loop and all
other clients go on. Invariant: one question a client at a time; a client that leaves takes its question with it, and a
question that fails in any way admits nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from magmobo.components.magws.connection import Client
from magmobo.components.magws.errors import GuardSilent, SubscriptionDenied, SubscriptionRefused
from magmobo.components.magws.hooks import RealtimeHooks
from magmobo.contracts.errors import HookDenied, MagError
from magmobo.contracts.hooks import ChannelContext


class Questions:
    """Asks for one client after the other; `decided` of `ask` gets the refusal, or None."""

    def __init__(self, hooks: RealtimeHooks, log: structlog.stdlib.BoundLogger) -> None:
        self._hooks, self._log = hooks, log
        self._asking: dict[Client, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._asking)

    def ask(
        self, client: Client, name: str, *, is_first: bool, decided: Callable[[SubscriptionRefused | None], None]
    ) -> None:
        """Hold the client until extensions said whether it may have the channel. `is_first`: nobody is on it now."""
        client.hold()
        decision = self._decide(client, name, is_first, decided)
        self._asking[client] = asyncio.get_running_loop().create_task(decision, name="magws question")

    def drop(self, client: Client) -> None:
        """The client is gone."""
        if (task := self._asking.pop(client, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Ask nothing more; who waits is not answered."""
        tasks = list(self._asking.values())
        self._asking.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _decide(
        self, client: Client, name: str, is_first: bool, decided: Callable[[SubscriptionRefused | None], None]
    ) -> None:
        refusal = await self._refusal(client, name, is_first)
        if self._asking.pop(client, None) is None:  # left in the very moment of the answer
            return
        try:
            decided(refusal)
            client.release()
        except Exception:  # as the port would treat it, had the message come straight from there
            self._log.exception("realtime_client_dropped", channel=name)
            client.connection.abort()

    async def _refusal(self, client: Client, name: str, is_first: bool) -> SubscriptionRefused | None:
        context = ChannelContext(app=client.app.id, channel=name, connection_id=client.socket_id)
        try:
            if is_first and (chain := self._hooks.register.chain) is not None:
                await chain.before(context)
            if (chain := self._hooks.subscribe.chain) is not None:
                await chain.before(context)
        except HookDenied as denial:
            return SubscriptionDenied(name, str(denial))
        except MagError as error:
            return GuardSilent(name, str(error))
        except Exception:
            self._log.exception("realtime_question_failed", channel=name)
            return GuardSilent(name, "an extension must allow this and could not be asked")
        return None
