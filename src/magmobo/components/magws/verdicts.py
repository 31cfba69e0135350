"""What becomes of messages that extensions are asked about, for the publisher who waits for it.

Boundary: collects answers; who is asked, and in which order, is `broadcasts`'s. Where nobody is asked all is known at
once, and nothing is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from magmobo.contracts.errors import MagError

Told = Callable[[MagError | None], None]
"""Called once for each message: with None when it went out, else with the reason why not."""


class Verdicts:
    """Of the messages of one publisher."""

    def __init__(self) -> None:
        self._undecided = 0
        self._refused: dict[str, MagError] = {}
        self._decided: asyncio.Future[None] | None = None

    def of(self, channel: str) -> Told:
        """Whom to tell of one more message."""
        self._undecided += 1

        def told(error: MagError | None) -> None:
            self._undecided -= 1
            if error is not None:
                self._refused[channel] = error
            if not self._undecided and self._decided is not None and not self._decided.done():
                self._decided.set_result(None)

        return told

    async def wait(self) -> Mapping[str, MagError]:
        """Once all are decided: channel -> why a message to it did not go out."""
        if self._undecided:
            self._decided = asyncio.get_running_loop().create_future()
            await self._decided
        return self._refused
