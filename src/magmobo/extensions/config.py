"""Settings of the extension plane, section [extensions]."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Annotated, Literal

from msgspec import Meta, Struct

from magmobo.contracts.errors import ConfigError
from magmobo.contracts.settings import ADMINS_ONLY, LIVE, NEEDS_COMPONENT_RESTART

MIB = 1_048_576
DAY_S = 86_400


class ExtensionsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [extensions]. A limit that a manifest sets lower stays lower."""

    enabled: Annotated[
        bool, Meta(description="whether extensions run at all; the commands answer either way"), NEEDS_COMPONENT_RESTART
    ] = True
    min_tier: Annotated[
        Literal["S0", "S1", "S2", "S3"],
        Meta(description="least sandbox in which any extension runs; a manifest may ask for more, never for less"),
        NEEDS_COMPONENT_RESTART,
        ADMINS_ONLY,
    ] = "S2"
    allow_unsandboxed: Annotated[
        bool,
        Meta(description="run extensions where there is no sandbox at all (tier S0): for development on other systems"),
        NEEDS_COMPONENT_RESTART,
        ADMINS_ONLY,
    ] = False
    system_dir: Annotated[
        str,
        Meta(
            description="where a node started by root keeps files of extensions; every parent open to others (o+x), "
            "none writable by them"
        ),
        NEEDS_COMPONENT_RESTART,
        ADMINS_ONLY,
    ] = "/var/lib/magmobo/extensions"
    max_workers: Annotated[
        int, Meta(ge=1, le=1000, description="extensions that may be enabled at the same time"), LIVE
    ] = 50
    max_memory_bytes: Annotated[
        int, Meta(ge=64 * MIB, description="most memory of one worker, whatever its manifest asks for"), LIVE
    ] = 1024 * MIB
    idle_stop_s: Annotated[
        float, Meta(ge=1, le=DAY_S, description="an unused worker ends after; the next call starts it again"), LIVE
    ] = 300.0
    drain_s: Annotated[
        float, Meta(ge=0, le=300, description="how long a worker may finish what it does when it is stopped"), LIVE
    ] = 10.0
    upgrade_watch_s: Annotated[
        float,
        Meta(ge=0, le=3600, description="how long after an upgrade an unhealthy version goes back by itself"),
        LIVE,
    ] = 60.0
    event_backlog: Annotated[
        int, Meta(ge=100, le=1_000_000, description="events that may wait for one subscription before a gap"), LIVE
    ] = 10_000
    event_retention_s: Annotated[
        float, Meta(ge=60, le=30 * DAY_S, description="how long events are kept for a replay"), LIVE
    ] = 7.0 * DAY_S
    http_networks: Annotated[
        Sequence[Annotated[str, Meta(max_length=50)]],
        Meta(
            max_length=50,
            description="private networks (CIDR) that requests of extensions may reach, besides the public internet",
        ),
        LIVE,
        ADMINS_ONLY,
    ] = ()


def check(config: ExtensionsConfig) -> None:
    """What the types alone cannot say. Raises: ConfigError."""
    problems = []
    for text in config.http_networks:
        try:
            ip_network(text)
        except ValueError as error:
            problems.append(f"extensions.http_networks: {error}")
    if problems:
        raise ConfigError(problems)
