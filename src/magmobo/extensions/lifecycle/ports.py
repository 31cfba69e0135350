"""What the lifecycle wants of the rooms beside it, no more than it calls.

Boundary: Protocols and one bundle of collaborators; whoever wires the plane fills it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Raw

from magmobo.contracts.audit import Audit
from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.guests import Guests, Migration, Migrations, TableRight
from magmobo.contracts.planes import Database, Vault
from magmobo.extensions.config import ExtensionsConfig
from magmobo.extensions.installed import Grant, Installed, Question
from magmobo.extensions.standing import Standing

if TYPE_CHECKING:
    import structlog
    from psycopg import AsyncConnection


class Worker(Protocol):
    """The process of one version on this node."""

    @property
    def installed(self) -> Installed: ...
    @property
    def handlers(self) -> frozenset[str]:
        """What its code offers, named as in `magx.wire.Ready`; empty before it was ready."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether its process ended because nobody needed it; the next question starts one."""
        ...

    async def start(self) -> None:
        """Returns once its process is ready. Raises: MagError."""
        ...

    async def ask(self, question: Question) -> Raw:
        """The answer of one handler. Raises: MagError."""
        ...

    def tell_settings(self) -> None:
        """Let it know of `installed.settings` and of what it may do now."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """No more questions; let it finish, and end it at the latest after this time."""
        ...

    def kill(self) -> None:
        """End it now."""
        ...

    def figures(self) -> Mapping[str, float]:
        """Counts since the node started; `restarts` among them."""
        ...


class WorkerFactory(Protocol):
    """Makes workers. Both callbacks are called on the loop and return at once; the text of what `on_crash` is given
    says how the process ended.
    """

    def __call__(
        self,
        installed: Installed,
        *,
        uid: int,
        data_dir: Path,
        on_crash: Callable[[Installed, object], None],
        on_escape: Callable[[Installed, str], None],
    ) -> Worker:
        """A worker that is not started. `data_dir` is its own folder, which may not exist yet; `uid` owns it where the
        node is root.
        """
        ...


class Premises(Protocol):
    """Where files of extensions lie on this node; asked in a thread."""

    def root(self) -> Path:
        """The folder that `versions` and `data` are in, made when it is asked for first. Raises: MagError."""
        ...

    def known(self) -> Path:
        """The same for whoever removes files: where there are none, this folder is not there either."""
        ...


class HookRouter(Protocol):
    """Who takes part at the hook points of this node."""

    def attach(self, worker: Any) -> None:
        """Let it take part by its manifest; what it may do is asked at each call."""
        ...

    def detach(self, extension_id: str) -> None:
        """Leave it out, as a placeholder too."""
        ...

    def swap(self, old: Any, new: Any) -> None:
        """Put `new` where `old` is, with one assignment a point."""
        ...

    def guard(self, installed: Installed) -> None:
        """Hold its place: its hooks that fail closed deny, the others are skipped."""
        ...


class EventRouter(Protocol):
    """Who is told of which events."""

    async def attach(self, worker: Any) -> None:
        """Deliver to this worker from now on, in the place of another one of the extension."""
        ...

    async def detach(self, extension_id: str) -> None:
        """Deliver nothing to it; what comes waits."""
        ...

    async def forget(self, connection: AsyncConnection[Any], extension_id: str) -> None:
        """Remove all that is kept of it: subscriptions, jobs, values. In the caller's transaction."""
        ...

    async def unfollow(self, connection: AsyncConnection[Any], extension_id: str) -> None:
        """Log nothing for it any more; its values stay. In the caller's transaction."""
        ...

    async def standing(self, extension_id: str, grants: Mapping[str, Grant]) -> Standing:
        """What waits for it and what of `grants`, which count now, is used up."""
        ...


class Endpoints(Protocol):
    """Requests below /ext/<id>/."""

    async def attach(self, worker: Any) -> None:
        """Send requests to this worker from now on, in the place of another one. Raises: HookDenied."""
        ...

    def detach(self, extension_id: str) -> None:
        """Answer that it is not there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that the lifecycle works with.

    `tables` are the migrations of namespace `extensions`, those of the event log too. `tier` tells the sandbox that
    this machine gives; `used` counts calls of an extension by capability; `forget` is told of one that was uninstalled;
    `spawn` runs a task that ends with the component; `hide` takes secrets out of texts.
    """

    database: Database
    guests: Guests
    migrations: Migrations
    make_worker: WorkerFactory
    hooks: HookRouter
    events: EventRouter
    endpoints: Endpoints
    audit: Audit
    bus: Bus
    vault: Callable[[], Vault]
    clock: Clock
    log: structlog.stdlib.BoundLogger
    hide: Callable[[str], str]
    spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    config: Callable[[], ExtensionsConfig]
    tier: Callable[[], Coroutine[Any, Any, str]]
    rights_of: Callable[[Installed], Sequence[TableRight]]
    used: Callable[[str, str], int]
    forget: Callable[[str], None]
    tables: Sequence[Migration]
    premises: Premises
    node_version: str
