"""Who owns a link, as the link sees it."""

from __future__ import annotations

from typing import Protocol

from magx import wire


class Keeper(Protocol):
    """Who owns a link."""

    def on_told(self, frame: wire.Log | wire.Figure) -> None: ...
    def on_api(self, frame: wire.Api) -> None:
        """Raises: ProtocolFault."""
        ...

    def on_fault(self, what: str) -> None:
        """The worker broke the protocol; the link is cut."""
        ...

    def on_deaf(self) -> None:
        """The worker's loop does not live; the link is cut."""
        ...

    def on_lost(self) -> None:
        """The worker's end of the socket is gone."""
        ...

    def frames_per_s(self) -> float:
        """How many frames of its own accord a second are fine."""
        ...
