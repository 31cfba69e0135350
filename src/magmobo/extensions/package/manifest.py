"""`manifest.json`: what an extension is, what it asks for, and what it takes part in.

Boundary: the shape alone; `validate.py` checks it as a whole. Unknown fields are refused. Handlers are not named here:
the code's decorators bind them to the same names, and the node compares both when a worker is ready.
Source: CONTRACTS sections 5 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from magmobo.contracts.extensions import CapabilityName, ExtensionId

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,59}(?![\s\S])")]
Text = Annotated[str, Meta(max_length=500)]
Filter = Mapping[str, Any]
"""`{"data.duration_s": {"$gt": 1}}`; see `extensions.languages.filters`."""


class CapabilityRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One capability. `tables` are `schema.name` (or `schema.name(column, …)`), `hosts` are `name[:port]` with `*.`
    allowed in front, `channels` are names with `*` allowed at the end, `topics` likewise. `optional`: it runs without,
    and `fallback` says how.
    """

    name: CapabilityName
    reason: Annotated[str, Meta(min_length=1, max_length=300)]
    optional: bool = False
    fallback: Text = ""
    tables: Annotated[Sequence[Annotated[str, Meta(max_length=1000)]], Meta(max_length=200)] = ()
    hosts: Annotated[Sequence[Annotated[str, Meta(max_length=260)]], Meta(max_length=100)] = ()
    channels: Annotated[Sequence[Annotated[str, Meta(max_length=200)]], Meta(max_length=100)] = ()
    topics: Annotated[Sequence[Annotated[str, Meta(max_length=100)]], Meta(max_length=100)] = ()
    rate_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class HookBinding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Takes part at a hook point. Higher priority runs earlier; `timeout_ms` and `on_error` narrow what the point
    says.
    """

    point: Annotated[str, Meta(max_length=60)]
    priority: Annotated[int, Meta(ge=0, le=100)] = 50
    timeout_ms: Annotated[int, Meta(ge=1, le=30_000)] | None = None
    on_error: Literal["deny", "skip", "fallback"] | None = None


class EventBinding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A subscription, delivered at least once. `topic` may be a pattern; for `database.change`, `tables` names the
    tables. Events with the same value at `partition_by` (a path such as `data.table`) keep their order.
    """

    name: Name
    topic: Annotated[str, Meta(max_length=100)]
    tables: Annotated[Sequence[Annotated[str, Meta(max_length=200)]], Meta(max_length=100)] = ()
    where: Filter = {}
    partition_by: Annotated[str, Meta(max_length=100)] = ""


class EndpointBinding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers requests at /ext/<id><path>. `public`: also those of nobody in particular; else a token's role must be
    one that requests may use.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: Annotated[str, Meta(pattern=r"^/[A-Za-z0-9/_.-]{0,99}(?![\s\S])")]
    public: bool = False
    timeout_ms: Annotated[int, Meta(ge=1, le=30_000)] = 5_000


class CommandBinding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command for `mag extension:run ID NAME`."""

    name: Name
    summary: Text = ""


class JobBinding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Work that runs by a schedule (`cron`, five fields, UTC) or when it is enqueued (`cron` empty)."""

    name: Name
    cron: Annotated[str, Meta(max_length=100)] = ""
    timeout_ms: Annotated[int, Meta(ge=1, le=600_000)] = 60_000


class Requirements(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges of versions: of the node, and of other extensions that must be enabled. `conflicts`: that must not."""

    magmobo: Annotated[str, Meta(max_length=100)] = "*"
    extensions: Mapping[ExtensionId, Annotated[str, Meta(max_length=100)]] = {}
    conflicts: Annotated[Sequence[ExtensionId], Meta(max_length=50)] = ()


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one worker may use. The node's own limits count as well."""

    memory_bytes: Annotated[int, Meta(ge=64 * 1_048_576, le=4096 * 1_048_576)] = 512 * 1_048_576
    data_bytes: Annotated[int, Meta(ge=0, le=1024 * 1_048_576)] = 16 * 1_048_576
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 64


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of it. `settings` is a JSON Schema of an object (the subset of docs/extensions.md; a property with
    `"x-secret": true` is kept in the vault). `entry` is `module:attribute` of an `Extension`.
    """

    manifest_version: Literal[1] = 1
    id: ExtensionId
    name: Annotated[str, Meta(min_length=1, max_length=80)]
    version: Annotated[str, Meta(max_length=60)]
    description: Text = ""
    author: Annotated[str, Meta(max_length=100)] = ""
    license: Annotated[str, Meta(max_length=60)] = ""
    entry: Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_.]{0,99}:[a-z_][a-z0-9_]{0,59}(?![\s\S])")] = "extension:ext"
    min_tier: Literal["S0", "S1", "S2", "S3"] = "S2"
    requires: Requirements = Requirements()
    limits: Limits = Limits()
    capabilities: Annotated[Sequence[CapabilityRequest], Meta(max_length=40)] = ()
    hooks: Annotated[Sequence[HookBinding], Meta(max_length=40)] = ()
    events: Annotated[Sequence[EventBinding], Meta(max_length=40)] = ()
    endpoints: Annotated[Sequence[EndpointBinding], Meta(max_length=100)] = ()
    commands: Annotated[Sequence[CommandBinding], Meta(max_length=40)] = ()
    jobs: Annotated[Sequence[JobBinding], Meta(max_length=40)] = ()
    health_every_s: Annotated[int, Meta(ge=5, le=3600)] = 60
    settings: Mapping[str, Any] = {}

    def request(self, capability: str) -> CapabilityRequest | None:
        """What it asks for under this name."""
        return next((one for one in self.capabilities if one.name == capability), None)

    def handlers(self) -> frozenset[str]:
        """Handlers that the code must have, as the protocol names them; `health` is welcome and not asked for."""
        return frozenset(
            [
                *(f"hook:{one.point}" for one in self.hooks),
                *(f"event:{one.name}" for one in self.events),
                *(f"endpoint:{one.method} {one.path}" for one in self.endpoints),
                *(f"command:{one.name}" for one in self.commands),
                *(f"job:{one.name}" for one in self.jobs),
            ]
        )
