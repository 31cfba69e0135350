"""What extensions may ask of events, jobs and values: arguments checked, the extension's own alone.

An event is published under the extension's own id, whatever it says; names that belong to the node's own topics are
refused. What a published event led to may publish again, to a bound. Invariant: no argument names another extension.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Struct

from magmobo.contracts.clock import Clock
from magmobo.contracts.events import declared_events
from magmobo.contracts.planes import Database
from magmobo.extensions.events.bodies import of_published
from magmobo.extensions.events.errors import EventRefused, EventsTooDeep, JobRefused
from magmobo.extensions.events.kv import Values
from magmobo.extensions.events.log import Entry
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.installed import ApiMethod, Caller, Installed
from magmobo.extensions.package.scopes import topic_words, topics_meet

MAX_PAYLOAD_BYTES = MAX_ARGUMENTS_BYTES = 65_536
MAX_DEPTH = 8
"""Published events that may lead to each other."""
MAX_KEYS = 1000
_EMIT = "api.emit_events"

Name = Annotated[str, Meta(min_length=1, max_length=60)]
EventName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*(?![\s\S])", max_length=100)]
Key = Annotated[str, Meta(pattern=r"^[^\x00]{1,200}(?![\s\S])")]
Part = Annotated[str, Meta(pattern=r"^[^\x00]{0,200}(?![\s\S])")]


class Publish(Struct, frozen=True, forbid_unknown_fields=True):
    """Events with the same `key` keep their order for those who ask for it (`partition_by: data.key`)."""

    name: EventName
    payload: Any = None
    key: Part = ""


class Subscribe(Struct, frozen=True, forbid_unknown_fields=True):
    """`active` false: what comes waits."""

    subscription: Name
    active: bool = True


class Replay(Struct, frozen=True, forbid_unknown_fields=True):
    """How far back."""

    subscription: Name
    seconds: Annotated[float, Meta(ge=0, le=604_800)]


class Enqueue(Struct, frozen=True, forbid_unknown_fields=True):
    """A job of the manifest, to run in so many seconds at the earliest."""

    job: Name
    arguments: Mapping[str, Any] = {}
    delay_s: Annotated[float, Meta(ge=0, le=2_592_000)] = 0.0


class Get(Struct, frozen=True, forbid_unknown_fields=True):
    """The value of a key."""

    key: Key


class Put(Struct, frozen=True, forbid_unknown_fields=True):
    """A value for a key."""

    key: Key
    value: Any


class List(Struct, frozen=True, forbid_unknown_fields=True):
    """Keys that begin with `prefix` and come behind `after`."""

    prefix: Part = ""
    after: Part = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_KEYS)] = 100


class Log(Protocol):
    """The event router, as far as it is asked here."""

    async def publish(self, entry: Entry) -> None: ...
    def depth(self, extension_id: str) -> int: ...
    async def set_active(self, extension_id: str, name: str, *, active: bool) -> None: ...
    async def replay(self, extension_id: str, seconds: float, name: str | None = None) -> None: ...
    async def enqueue(self, installed: Installed, name: str, arguments: bytes, delay_s: float) -> None: ...


class EventMethods:
    """The handlers of the methods."""

    def __init__(self, router: Log, database: Database, clock: Clock, gatekeeper: Gatekeeper) -> None:
        self._router, self._clock, self._gatekeeper = router, clock, gatekeeper
        self._values = Values(database)
        self._node_names: frozenset[str] = frozenset()

    def methods(self) -> Sequence[ApiMethod]:
        """As the dispatcher wants them."""
        return (
            ApiMethod("events.publish", _EMIT, Publish, self._publish),
            ApiMethod("events.subscribe", "", Subscribe, self._subscribe),
            ApiMethod("events.replay", "", Replay, self._replay),
            ApiMethod("jobs.enqueue", "system.background_jobs", Enqueue, self._enqueue),
            ApiMethod("kv.get", "", Get, self._get),
            ApiMethod("kv.put", "", Put, self._put),
            ApiMethod("kv.delete", "", Get, self._delete),
            ApiMethod("kv.list", "", List, self._list),
        )

    async def _publish(self, caller: Caller, args: Publish) -> dict[str, str]:
        """Raises: EventRefused, EventsTooDeep, EventsBusy."""
        installed = caller.extension
        self._check_name(installed, args.name)
        if len(_packed(args.payload)) > MAX_PAYLOAD_BYTES:
            raise EventRefused(f"its payload is larger than {MAX_PAYLOAD_BYTES} bytes")
        depth = self._router.depth(installed.id) + 1
        if depth > MAX_DEPTH:
            raise EventsTooDeep(MAX_DEPTH)
        event_id = f"{installed.id}/{uuid.uuid4().hex}"
        fields = {"extension_id": installed.id, "name": args.name, "payload": args.payload, "key": args.key}
        await self._router.publish(of_published(event_id, fields, depth, self._clock.time_s()))
        return {"id": event_id}

    async def _subscribe(self, caller: Caller, args: Subscribe) -> None:
        """Raises: SubscriptionUnknown."""
        await self._router.set_active(caller.extension.id, args.subscription, active=args.active)

    async def _replay(self, caller: Caller, args: Replay) -> None:
        """Raises: SubscriptionUnknown."""
        await self._router.replay(caller.extension.id, args.seconds, args.subscription)

    async def _enqueue(self, caller: Caller, args: Enqueue) -> None:
        """Raises: JobRefused."""
        arguments = _packed(args.arguments)
        if len(arguments) > MAX_ARGUMENTS_BYTES:
            raise JobRefused(args.job, f"its arguments are larger than {MAX_ARGUMENTS_BYTES} bytes")
        await self._router.enqueue(caller.extension, args.job, arguments, args.delay_s)

    async def _get(self, caller: Caller, args: Get) -> dict[str, Any]:
        value = await self._values.get(caller.extension.id, args.key)
        return {"value": None if value is None else msgspec.msgpack.decode(value)}

    async def _put(self, caller: Caller, args: Put) -> None:
        """Raises: ValueRefused."""
        limits = caller.extension.manifest.limits
        await self._values.put(caller.extension.id, args.key, _packed(args.value), limits.data_bytes)

    async def _delete(self, caller: Caller, args: Get) -> None:
        await self._values.delete(caller.extension.id, args.key)

    async def _list(self, caller: Caller, args: List) -> dict[str, Sequence[str]]:
        return {"keys": await self._values.keys(caller.extension.id, args.prefix, args.after, args.limit)}

    def _check_name(self, installed: Installed, name: str) -> None:
        """What is not its own to say is on record. Raises: EventRefused."""
        if not self._node_names:
            self._node_names = frozenset(["auth", *(event.topic.partition(".")[0] for event in declared_events())])
        if name.partition(".")[0] in self._node_names:
            self._gatekeeper.denied(installed, _EMIT, "events.publish", "name")
            raise EventRefused(f"{name} would be an event of the node; begin with a word of your own")
        allowed = installed.scope(_EMIT, "topics")
        if not any(topics_meet(topic_words(one), name) for one in allowed):
            self._gatekeeper.denied(installed, _EMIT, "events.publish", "topic")
            raise EventRefused(f"{name} is not among the events that it may publish")


def _packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)
