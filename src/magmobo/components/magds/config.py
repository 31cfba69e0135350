"""Settings of the storage plane, section [magds].

Boundary: values and ranges only; what cannot be decided without a server is checked where the server is known.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import ADMINS_ONLY, LIVE, NEEDS_COMPONENT_RESTART

MIB = 1_048_576
GIB = 1_073_741_824


class MagDSConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [magds]. Live settings reach connections by making them anew, old ones drain; what the embedded server
    itself is started with asks for a restart of the component.
    """

    dsn: Annotated[
        Secret | None,
        Meta(
            description="Postgres to attach to (URL or libpq keywords); unset: an embedded server. User, password and "
            "the way to the same database change live; for another database the node must be restarted"
        ),
        LIVE,
    ] = None
    bin_dir: Annotated[
        str | None,
        Meta(description="folder with postgres and initdb for the embedded server; unset: found"),
        NEEDS_COMPONENT_RESTART,
        ADMINS_ONLY,
    ] = None
    system_dir: Annotated[
        str,
        Meta(description="where clusters of nodes started by root live; every parent open to others (o+x)"),
        NEEDS_COMPONENT_RESTART,
        ADMINS_ONLY,
    ] = "/var/lib/magmobo"
    multiplexer_connections: Annotated[
        int, Meta(ge=1, le=5, description="pipelined connections for requests"), LIVE
    ] = 2
    multiplexer_depth: Annotated[
        int, Meta(ge=1, le=64, description="requests in flight on one pipelined connection; the others wait"), LIVE
    ] = 12
    multiplexer_statements: Annotated[
        int, Meta(ge=8, le=10_000, description="prepared statements kept on one pipelined connection"), LIVE
    ] = 256
    request_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="deadline of one request, waiting included, unless the caller says"), LIVE
    ] = 10.0
    statement_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="after this Postgres ends a statement on a pipelined connection"), LIVE
    ] = 10.0
    slow_query_s: Annotated[
        float,
        Meta(gt=0, le=3_600, description="a request's statement that takes longer is told as a slow query"),
        LIVE,
    ] = 1.0
    pool_size: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="whole connections for COPY, DDL and long work. max_connections of the server needs room for "
            "them, for multiplexer_connections, 2 of live changes, up to 4 kept for good where extensions run, "
            "and up to 3 for each extension that uses the database: on each node",
        ),
        LIVE,
    ] = 8
    pool_idle_s: Annotated[
        float, Meta(gt=0, le=86_400, description="an unused whole connection is closed after"), LIVE
    ] = 60
    acquire_timeout_s: Annotated[float, Meta(gt=0, le=600, description="longest wait for a whole connection"), LIVE] = (
        10.0
    )
    connect_timeout_s: Annotated[
        float, Meta(ge=1, le=300, description="longest wait for the server to answer"), LIVE
    ] = 10.0
    start_timeout_s: Annotated[
        float, Meta(ge=1, le=3_600, description="longest start of the embedded server, crash recovery included"), LIVE
    ] = 120.0
    stop_timeout_s: Annotated[
        float,
        Meta(gt=0, le=600, description="longest fast shutdown of the embedded server before an immediate one"),
        LIVE,
    ] = 10.0
    max_slot_wal_keep_size_bytes: Annotated[
        int,
        Meta(ge=64 * MIB, description="WAL the embedded server keeps for a stopped reader"),
        NEEDS_COMPONENT_RESTART,
    ] = 4 * GIB
    wal_limit_bytes: Annotated[
        int, Meta(ge=16 * MIB, description="WAL our slot may hold back on a server that sets no limit itself"), LIVE
    ] = GIB
    keep_slot: Annotated[
        bool | None,
        Meta(description="keep the slot at a clean stop; unset: only where the server limits the WAL of slots"),
        LIVE,
    ] = None
    history_bytes: Annotated[
        int, Meta(ge=MIB, description="memory of the change history, all tables together"), LIVE
    ] = 64 * MIB
    history_s: Annotated[float, Meta(ge=1, le=86_400, description="age of the oldest change in the history"), LIVE] = (
        300.0
    )
