"""What a change of settings is made of: the node it happens to, what counts, what is to count, and the change itself.

Boundary: shapes only; `turnover` goes by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from msgspec import Struct

from magmobo.contracts.capabilities import Actor
from magmobo.contracts.clock import Clock
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.source import Base, Built, Runtime
from magmobo.kernel.config.versions import Held
from magmobo.kernel.current import Current
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.planning import Plan
from magmobo.kernel.services import Services
from magmobo.kernel.tuning import Tuning


class Node(Struct, frozen=True):
    """What a reload needs of its node. `assembly` raises NotReady while components come up or go down."""

    environment: str
    current: Current
    assembly: Callable[[], Assembly]
    services: Services
    bus: EventBus
    clock: Clock
    tuning: Tuning
    log: QuietLog


class Counted(Struct, frozen=True):
    """What counts, and what it was made of; `built` is without what `waiting` has to wait for.

    leaves_out: as of `Start`; `runtime` and `held` are remembered only.
    """

    version: int
    base: Base
    runtime: Runtime
    config: Config
    built: Built
    held: Held | None = None
    waiting: Set[str] = frozenset()
    leaves_out: bool = False


class Target(Struct, frozen=True):
    """What is to count. `built` None: the source makes it. `is_read`: `base` is what the files say now.

    later: what is to be set at run time afterwards, which must be valid over `base` as well.
    leaves_out: as of `Counted`.
    """

    base: Base
    runtime: Runtime
    held: Held | None = None
    built: Built | None = None
    is_read: bool = False
    note: str = ""
    later: Sequence[Runtime] = ()
    leaves_out: bool = False


class Attempt:
    """One change under way. `is_forced`: there is no way back behind it."""

    def __init__(self, trigger: str, actor: Actor, *, dry_run: bool = False, is_forced: bool = False) -> None:
        self.trigger, self.actor, self.dry_run, self.is_forced = trigger, actor, dry_run, is_forced
        self.plan: Plan | None = None
        self.expired: Sequence[str] = ()
        """Keys of patches that this ends."""
