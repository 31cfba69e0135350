"""Settings of the public port."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from magmobo.contracts.settings import ADMINS_ONLY, LIVE

# A name or an IPv6 address: what may stand in a Host header before the port.
HostName = Annotated[str, Meta(pattern=r"^(?:[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?)$")]


class ListenerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [listener]. All of it changes live; who is connected stays connected, also when the port moves."""

    host: Annotated[
        str,
        Meta(min_length=1, description="address to listen on; loopback unless you say otherwise"),
        LIVE,
        ADMINS_ONLY,
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port; 0 takes any free one and prints it"), LIVE] = 8787
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Meta(
            description="names accepted in the Host header besides localhost, without port; on loopback no other name "
            "is accepted, elsewhere every name is until one is listed here"
        ),
        LIVE,
        ADMINS_ONLY,
    ] = ()
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="open connections, HTTP and WebSocket together"), LIVE
    ] = 10_000
    max_head_bytes: Annotated[
        int, Meta(ge=1_024, le=1_048_576, description="longest request line and headers together"), LIVE
    ] = 16_384
    max_message_bytes: Annotated[
        int,
        Meta(
            ge=1_024,
            le=67_108_864,
            description="longest WebSocket message a client may send, once it has connected anew",
        ),
        LIVE,
    ] = 65_536
    max_unsent_bytes: Annotated[
        int,
        Meta(ge=65_536, description="unsent bytes after which a WebSocket client is dropped, whoever serves it"),
        LIVE,
    ] = 16_777_216
    header_timeout_s: Annotated[
        float,
        Meta(gt=0, le=300, description="time for a request's head to arrive, from the first byte or the accept"),
        LIVE,
    ] = 10.0
    stall_timeout_s: Annotated[
        float, Meta(gt=0, le=3_600, description="time a client may neither send its body nor take its response"), LIVE
    ] = 60.0
    keep_alive_s: Annotated[
        int, Meta(ge=1, le=3_600, description="idle time after which a kept-alive HTTP connection is closed"), LIVE
    ] = 15
    close_timeout_s: Annotated[
        float, Meta(gt=0, le=60, description="time a WebSocket client has to answer a close before it is dropped"), LIVE
    ] = 5.0
    drain_timeout_s: Annotated[
        float,
        Meta(ge=0, le=600, description="time running requests and WebSockets get to end when the port stops"),
        LIVE,
    ] = 5.0
