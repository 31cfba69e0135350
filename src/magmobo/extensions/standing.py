"""How an extension stands with what the node lets it have: what waits for it, and what it may still ask for.

Boundary: facts, gathered when an operator asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from magmobo.contracts.extensions import LimitInfo, WaitInfo


class Standing(Struct, frozen=True):
    """`backlog`: events that wait for it; `dead`: events and jobs that it could not take; `waits` and `limits` as in
    `ExtensionDetail`.
    """

    backlog: int = 0
    dead: int = 0
    waits: Sequence[WaitInfo] = ()
    limits: Sequence[LimitInfo] = ()
