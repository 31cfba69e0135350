"""What a component is, to the kernel and to its author.

A component takes its collaborators in the constructor, does no I/O there, and implements the hooks it needs. The kernel
reads the constructor's annotations: `context: Context` comes first, `Needs[T]` is a hard dependency on whoever
provides the Protocol T, `Wants[T]` a soft one (None when nobody provides it). A `Needs[T]` value is a late-bound
handle: it survives restarts of its provider; an async call meanwhile waits, then raises `Unavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from msgspec import Struct

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.health import HealthReport

if TYPE_CHECKING:
    import structlog  # 60 ms; loaded when the first line is logged

    from magmobo.contracts.audit import Audit
    from magmobo.contracts.commands import Commands
    from magmobo.contracts.hooks import Hooks
    from magmobo.contracts.metrics import Metrics
    from magmobo.contracts.planes import Vault
    from magmobo.contracts.stores import Cache, State

T = TypeVar("T")


class _Need:
    """Marks a constructor parameter as a dependency; `hard` means the component cannot start without it."""

    def __init__(self, *, hard: bool) -> None:
        self.hard = hard


NEEDS, WANTS = _Need(hard=True), _Need(hard=False)
Needs = Annotated[T, NEEDS]
Wants = Annotated[T | None, WANTS]


class Context(Protocol):
    """What one component may see of the node."""

    @property
    def component(self) -> str: ...
    @property
    def instance_id(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def data_dir(self) -> Path:
        """The node's data folder, absolute; it exists, mode 0700."""
        ...

    @property
    def bus(self) -> Bus: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def log(self) -> structlog.stdlib.BoundLogger: ...
    @property
    def commands(self) -> Commands:
        """To answer commands, and to ask others with the capabilities that this component declares."""
        ...

    @property
    def metrics(self) -> Metrics: ...
    @property
    def state(self) -> State:
        """Durable keys and values of this component alone."""
        ...

    @property
    def cache(self) -> Cache: ...
    @property
    def audit(self) -> Audit: ...
    @property
    def vault(self) -> Vault:
        """Secrets of this component alone, those named `<component>.<name>`. Raises: Unavailable without a vault."""
        ...

    @property
    def hooks(self) -> Hooks:
        """Where extensions may take part in what this component does."""
        ...

    def hide(self, text: str) -> str:
        """`text` as it may be told at a public door: without passwords in URLs, and without the secrets of this node
        that nobody could guess. For the words of errors; log and events are searched by the kernel.
        """
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run a task that belongs to this component. If it raises, the component is failed with that error and
        recovered by the supervisor.

        What is spawned while `boot` runs lives until `shutdown`; anything later is ended when `stop` has returned.
        """
        ...


class Announcement(Struct, frozen=True):
    """What a running component wants its user to read at start. Lines are short and hold no secret.

    `urls`: label -> address. `examples`: commands to paste. `notices`: what is not possible here, why, and the next
    step.
    """

    urls: Mapping[str, str] = {}
    examples: Sequence[str] = ()
    notices: Sequence[str] = ()


class Component:
    """Base of every component. All hooks have a default; `name` is mandatory. Hooks run on the node's loop."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    provides: ClassVar[tuple[type, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    config_type: ClassVar[type[Struct] | None] = None
    capabilities: ClassVar[tuple[str, ...]] = ()
    essential: ClassVar[bool] = True
    """Whether the node is not ready (`/readyz`) while this component does not serve."""

    def configure(self, config: Any) -> None:
        """Take the validated, frozen section of `config_type`. Called once, before `boot`."""

    async def prepare_reload(self, new: Any, changed: Set[str]) -> None:
        """Get ready to take `new`, the whole section, of which `changed` differs: keys as in the file, without the
        section (`pool_size`, `jwt.secret`). Asked only when every one of them is marked `LIVE`.

        Whatever can fail is tried here: connect, bind, parse. The old section still counts. Exactly one of
        `commit_reload` and `abort_reload` follows, unless this raises.
        Raises: ReloadRefused, with the reason that the operator reads; any other error refuses as well.
        """

    def commit_reload(self) -> None:
        """From now on the prepared section counts; runs in one turn of the loop with those of all other components.

        Must not fail: a component that raises here is failed and restarted. What drains in the background is spawned.
        A component that does not override this has no live keys, whatever its section says: it is restarted.
        """

    async def abort_reload(self) -> None:
        """Let go of what `prepare_reload` got; the old section goes on to count. May come when nothing is held."""

    async def boot(self) -> None:
        """Allocate, connect, warm; no traffic yet. What it needs is booted already."""

    async def start(self) -> None:
        """Begin to serve."""

    async def stop(self) -> None:
        """Refuse new work, drain, return. `start` may follow."""

    async def shutdown(self, timeout_s: float) -> None:
        """Release everything `boot` took, within `timeout_s`. Nothing follows."""

    async def recover(self) -> None:
        """Come back after a failure, on the same instance; by default stop and start again. Called by the supervisor
        inside the restart budget; when it returns, the component serves.
        """
        await self.stop()
        await self.start()

    async def health(self) -> HealthReport:
        """How the component is now; must answer fast and never raise for a sick dependency."""
        return HealthReport.of()

    def implementation(self, protocol: type) -> Any:
        """The object that serves `protocol`, one of `provides`; by default the component itself. Asked when it runs."""
        return self

    def announce(self) -> Announcement:
        """What the user should read once the node is ready."""
        return Announcement()
