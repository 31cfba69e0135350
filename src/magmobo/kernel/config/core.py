"""The sections that every node has, whichever components it runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import ADMINS_ONLY, LIVE, NEEDS_NODE_RESTART

_SHA256 = r"[0-9a-f]{64}"
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class KernelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [kernel]."""

    data_dir: Annotated[
        Path,
        Meta(description="folder for everything the node keeps; made with mode 0700"),
        NEEDS_NODE_RESTART,
        ADMINS_ONLY,
    ] = Path("mag_data")
    environment: Annotated[
        str,
        Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="names the files mag.<environment>.toml"),
        NEEDS_NODE_RESTART,
        ADMINS_ONLY,
    ] = "development"
    components: Annotated[
        tuple[str, ...],
        Meta(description="what to run, as module:Class; empty: everything that comes with MagMoBo"),
        NEEDS_NODE_RESTART,
        ADMINS_ONLY,
    ] = ()
    start_timeout_s: Annotated[Seconds, Meta(description="deadline of one component's boot and of its start"), LIVE] = (
        60.0
    )
    stop_timeout_s: Annotated[
        Seconds, Meta(description="deadline of one component's stop when it is restarted"), LIVE
    ] = 20.0
    stage_timeout_s: Annotated[
        Seconds, Meta(description="deadline of each of the six stages of the boot"), NEEDS_NODE_RESTART
    ] = 600.0
    without: Annotated[
        tuple[str, ...],
        Meta(description="names of components that do not start, as with --without"),
        NEEDS_NODE_RESTART,
    ] = ()
    shutdown_timeout_s: Annotated[Seconds, Meta(description="deadline of the whole shutdown"), LIVE] = 30.0
    watch_files: Annotated[
        bool, Meta(description="apply changed configuration files by themselves, as `mag config:reload` does"), LIVE
    ] = True
    watch_interval_s: Annotated[
        float,
        Meta(ge=0.02, le=3600, description="pause between two looks at the files; a change counts once it rests"),
        LIVE,
    ] = 1.0
    reload_timeout_s: Annotated[
        Seconds, Meta(description="deadline of a component to get ready for a reload"), LIVE
    ] = 15.0
    reload_window_s: Annotated[
        float,
        Meta(ge=0, le=3600, description="a component that fails this soon after a reload takes it back; 0: never"),
        LIVE,
    ] = 30.0
    config_versions: Annotated[
        int, Meta(ge=1, le=1000, description="versions of the settings that are kept for `mag config:rollback`"), LIVE
    ] = 50


class LoggingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [logging]."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="the least severe lines that are written"), LIVE
    ] = "info"
    format: Annotated[
        Literal["off", "json", "pretty"],
        Meta(description="of lines on stderr, besides the JSON lines in the data folder; off: none there"),
        LIVE,
    ] = "off"


class AdminConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [admin]."""

    host: Annotated[
        str,
        Meta(min_length=1, description="address of the operators' HTTP listener (/metrics, /livez, /readyz)"),
        NEEDS_NODE_RESTART,
        ADMINS_ONLY,
    ] = "127.0.0.1"
    port: Annotated[
        Annotated[int, Meta(ge=0, le=65_535)] | None,
        Meta(description="its TCP port; 0: any free one; unset: 9500, or any free one when it is taken"),
        NEEDS_NODE_RESTART,
        ADMINS_ONLY,
    ] = None
    token_sha256: Annotated[
        Secret | None, Meta(description="sha256 of the admin token, 64 hex digits; unset: nobody is an admin"), LIVE
    ] = None

    def __post_init__(self) -> None:
        if self.token_sha256 is not None and not re.fullmatch(_SHA256, self.token_sha256.reveal()):
            raise ValueError("token_sha256 is not the sha256 of a token: expected 64 lower-case hex digits")


class HealthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [health]."""

    interval_s: Annotated[
        Seconds, Meta(description="pause between two rounds of asking components how they are"), LIVE
    ] = 10.0
    timeout_s: Annotated[
        Seconds, Meta(description="a component that needs longer to answer counts as unhealthy"), LIVE
    ] = 2.0
    failures: Annotated[
        int, Meta(ge=1, le=100, description="unhealthy answers in a row before a component counts as unhealthy"), LIVE
    ] = 3
    successes: Annotated[
        int, Meta(ge=1, le=100, description="better answers in a row before it counts as well again"), LIVE
    ] = 2
    on_unhealthy: Annotated[
        Literal["recover", "report"],
        Meta(description="recover: restart it inside its budget, unless the cause lies outside; report: only say so"),
        LIVE,
    ] = "recover"


class RecoveryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [recovery]."""

    restarts: Annotated[
        int,
        Meta(ge=0, le=100, description="restarts of one component inside the window before it is quarantined"),
        LIVE,
    ] = 3
    window_s: Annotated[Seconds, Meta(description="the window in which restarts are counted"), LIVE] = 60.0
    backoff_s: Annotated[
        Seconds, Meta(description="pause before the first restart; it doubles with each further one"), LIVE
    ] = 1.0
    backoff_max_s: Annotated[Seconds, Meta(description="the longest such pause"), LIVE] = 30.0
    jitter: Annotated[float, Meta(ge=0, le=1, description="share by which a pause is made longer or shorter"), LIVE] = (
        0.2
    )
    exit_on: Annotated[
        tuple[str, ...],
        Meta(description="components whose quarantine ends the node with exit code 1, for an outer supervisor to see"),
        LIVE,
    ] = ()

    def __post_init__(self) -> None:
        pauses_s = sum(min(self.backoff_s * 2**n, self.backoff_max_s) for n in range(self.restarts)) * (1 + self.jitter)
        if pauses_s >= self.window_s:
            raise ValueError(
                f"{self.restarts} restarts take up to {pauses_s:g} s of pauses, so they never fall into window_s "
                f"({self.window_s:g} s) and nothing would ever be quarantined: raise window_s or lower backoff_s"
            )


class ObservabilityConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [observability]."""

    events_kept: Annotated[
        int, Meta(ge=0, le=100_000, description="events remembered for `mag kernel:events` and diagnostics"), LIVE
    ] = 1000
    loop_stall_s: Annotated[
        Seconds, Meta(description="a handler that blocks the event loop for longer is named in the log"), LIVE
    ] = 1.0


class SecurityConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [security]."""

    audit_checkpoint_every: Annotated[
        int,
        Meta(ge=1, le=100_000, description="records between two signed checkpoints of the audit log"),
        LIVE,
        ADMINS_ONLY,
    ] = 100
    redact_emails: Annotated[
        bool,
        Meta(description="hide e-mail addresses too, wherever secrets are hidden: logs, events, records, dumps"),
        LIVE,
        ADMINS_ONLY,
    ] = False


class VaultConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [vault]. Its own secrets come from `file:`, `env:` or `cred:`, never from the vault itself."""

    driver: Annotated[
        Literal["local", "hashicorp"],
        Meta(description="local: a file in the data folder; hashicorp: a Vault server"),
        NEEDS_NODE_RESTART,
        ADMINS_ONLY,
    ] = "local"
    key: Annotated[
        Secret | None,
        Meta(description="key of the local vault, 64 hex digits; unset: made at its first use, secrets/vault.key"),
        LIVE,
    ] = None
    passphrase: Annotated[
        Secret | None,
        Meta(description="the key is derived from this instead; at most one of `key` and `passphrase`"),
        LIVE,
    ] = None
    versions: Annotated[
        int, Meta(ge=1, le=100, description="versions that are kept of each secret"), LIVE, ADMINS_ONLY
    ] = 10
    address: Annotated[
        str,
        Meta(max_length=300, description="URL of the Vault server, https:// unless it is on loopback"),
        LIVE,
        ADMINS_ONLY,
    ] = ""
    ca_path: Annotated[
        Path | None,
        Meta(description="PEM file of who signed the Vault server's certificate; unset: the public authorities"),
        LIVE,
        ADMINS_ONLY,
    ] = None
    token: Annotated[Secret | None, Meta(description="token for the Vault server"), LIVE] = None
    mount: Annotated[
        str, Meta(min_length=1, max_length=100, description="mount of its KV engine, version 2"), LIVE, ADMINS_ONLY
    ] = "secret"
    path: Annotated[
        str, Meta(max_length=200, description="folder of the secrets under that mount"), LIVE, ADMINS_ONLY
    ] = "magmobo"
    timeout_s: Annotated[
        Seconds, Meta(description="a Vault server that needs longer counts as gone"), LIVE, ADMINS_ONLY
    ] = 5.0

    def __post_init__(self) -> None:
        if self.key is not None and self.passphrase is not None:
            raise ValueError("key and passphrase are both set: the vault has one key, remove one of them")
        if self.key is not None and not re.fullmatch(_SHA256, self.key.reveal()):
            raise ValueError("key is not a key: expected 64 lower-case hex digits (`openssl rand -hex 32`)")


class CacheConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [cache]."""

    memory_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="what all cached values of this node may take together"), LIVE
    ] = 67_108_864
    redis_url: Annotated[
        Secret | None,
        Meta(description="redis:// or rediss:// address of a second layer shared by nodes; unset: none"),
        NEEDS_NODE_RESTART,
    ] = None
    redis_timeout_s: Annotated[
        Seconds, Meta(description="a slower Redis counts as gone, and memory alone serves"), NEEDS_NODE_RESTART
    ] = 0.25


CORE_SECTIONS: dict[str, type[Struct]] = {
    "kernel": KernelConfig,
    "logging": LoggingConfig,
    "admin": AdminConfig,
    "health": HealthConfig,
    "recovery": RecoveryConfig,
    "observability": ObservabilityConfig,
    "security": SecurityConfig,
    "cache": CacheConfig,
    "vault": VaultConfig,
}
