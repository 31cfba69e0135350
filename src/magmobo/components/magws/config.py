"""Section [magws]."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from magmobo.contracts.guests import is_private_schema
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import ADMINS_ONLY, LIVE

Name = Annotated[str, Meta(pattern=r"^[-A-Za-z0-9_]{1,64}$")]


class AppConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of magws.apps: who may connect and publish. Apps share the tables, never the other channels."""

    id: Annotated[Name, Meta(description="name in /apps/<id>/; Pusher's Python library insists on digits")]
    key: Annotated[Name, Meta(description="public; part of the WebSocket address")]
    secret: Annotated[Secret, Meta(description="signs channel authorisations and API calls; never leaves the server")]
    client_events: Annotated[
        bool, Meta(description="whether clients may send `client-` events on private channels")
    ] = False
    client_events_per_s: Annotated[int, Meta(ge=1, le=1000, description="per connection; more are refused")] = 10
    max_connections: Annotated[int, Meta(ge=1, description="above it new connections are closed with 4004")] = 100_000
    max_event_bytes: Annotated[
        int, Meta(ge=1024, le=1_048_576, description="data of one event from a client or the API")
    ] = 10_240
    max_row_bytes: Annotated[
        int, Meta(ge=1024, le=16_777_216, description="data of one change; above it only keys are sent")
    ] = 102_400


class TableConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of magws.tables: a table whose changes clients may follow."""

    table: Annotated[str, Meta(pattern=r"^[^.]+(\.[^.]+)?$", description="`schema.name`, or `name` in schema public")]
    access: Annotated[
        Literal["private", "public"], Meta(description="private: subscribers need a signature; public: anybody")
    ] = "private"
    rls: Annotated[
        Literal["refuse", "ignore"],
        Meta(description="refuse: not published while row level security is on; ignore: every row goes to everybody"),
    ] = "refuse"

    def __post_init__(self) -> None:
        """Raises: ValueError."""
        schema = self.table.rpartition(".")[0]
        if is_private_schema(schema):
            raise ValueError(
                f"table names one of schema {schema!r}, which is private: `mag` holds the node's own tables, and every "
                "`ext_…` those of an extension"
            )


class MagWSConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [magws]: realtime. Nothing is published unless `tables` says so. All of it changes live: clients of an
    app that is there no more are closed with 4001, those of the others stay.
    """

    apps: Annotated[tuple[AppConfig, ...], Meta(description="who may connect and publish"), LIVE, ADMINS_ONLY] = ()
    tables: Annotated[
        tuple[TableConfig, ...], Meta(description="tables whose changes clients may follow"), LIVE, ADMINS_ONLY
    ] = ()
    activity_timeout_s: Annotated[int, Meta(ge=5, le=600, description="silence before the server pings"), LIVE] = 120
    send_buffer_bytes: Annotated[
        int, Meta(ge=65_536, le=67_108_864, description="unsent bytes after which a client counts as slow"), LIVE
    ] = 1_048_576
    max_connections: Annotated[int, Meta(ge=1, description="of all apps; above it 4100"), LIVE] = 100_000
    max_channels: Annotated[int, Meta(ge=1, le=10_000, description="channels of one connection"), LIVE] = 200
    history_messages: Annotated[
        int, Meta(ge=0, le=10_000, description="messages an ordinary channel keeps for clients that resume"), LIVE
    ] = 100
    history_bytes: Annotated[
        int, Meta(ge=0, description="memory of all ordinary channels' histories together"), LIVE
    ] = 16_777_216
    history_s: Annotated[int, Meta(ge=1, le=3600, description="age after which a kept message is dropped"), LIVE] = 120
