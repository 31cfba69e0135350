"""The sections that every node has, whichever components it runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from magmobo.contracts.secret import Secret

_SHA256 = re.compile(r"[0-9a-f]{64}")
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class KernelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [kernel]."""

    data_dir: Annotated[Path, Meta(description="folder for everything the node keeps; made with mode 0700")] = Path(
        "mag_data"
    )
    environment: Annotated[
        str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="names the files mag.<environment>.toml")
    ] = "development"
    components: Annotated[
        tuple[str, ...], Meta(description="what to run, as module:Class; empty: everything that comes with MagMoBo")
    ] = ()
    start_timeout_s: Annotated[Seconds, Meta(description="deadline of one component's boot and of its start")] = 60.0
    shutdown_timeout_s: Annotated[Seconds, Meta(description="deadline of the whole shutdown")] = 30.0


class LoggingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [logging]."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="the least severe lines that are written")
    ] = "info"
    format: Annotated[
        Literal["off", "json", "pretty"],
        Meta(description="of lines on stderr, besides the JSON lines in the data folder; off: none there"),
    ] = "off"


class AdminConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [admin]."""

    token_sha256: Annotated[
        Secret | None, Meta(description="sha256 of the admin token, 64 hex digits; unset: nobody is an admin")
    ] = None

    def __post_init__(self) -> None:
        if self.token_sha256 is not None and not _SHA256.fullmatch(self.token_sha256.reveal()):
            raise ValueError("token_sha256 is not the sha256 of a token: expected 64 lower-case hex digits")


class HealthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [health]."""

    interval_s: Annotated[Seconds, Meta(description="pause between two rounds of asking components how they are")] = (
        10.0
    )
    timeout_s: Annotated[Seconds, Meta(description="a component that needs longer to answer counts as unhealthy")] = 2.0


CORE_SECTIONS: dict[str, type[Struct]] = {
    "kernel": KernelConfig,
    "logging": LoggingConfig,
    "admin": AdminConfig,
    "health": HealthConfig,
}
