"""Section [maggate] of the configuration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from magmobo.contracts.guests import is_private_schema
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import ADMINS_ONLY, LIVE


class JwtConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How bearer tokens are verified. At most one of `secret` and `public_key`; with neither, no token is accepted."""

    secret: Annotated[
        Secret | None, Meta(description="key that HMAC tokens are signed with; unset: none is accepted")
    ] = None
    public_key: Annotated[str, Meta(description="PEM of an RSA, EC or Ed25519 public key")] | None = None
    algorithms: Annotated[
        tuple[str, ...], Meta(description="accepted algorithms; empty: the one that fits the key")
    ] = ()
    audience: Annotated[str, Meta(description="value that `aud` must hold; empty: `aud` is not looked at")] = ""
    role_claim: Annotated[str, Meta(min_length=1, description="claim that names the Postgres role")] = "role"
    leeway_s: Annotated[float, Meta(ge=0, le=300, description="forgiven difference of clocks")] = 30.0


class MagGateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What REST exposes, to whom, and its limits. All of it changes live: a request is answered by the settings that
    counted when it came.
    """

    schemas: Annotated[
        tuple[str, ...],
        Meta(min_length=1, max_length=32, description="exposed schemas; the first is the default"),
        LIVE,
        ADMINS_ONLY,
    ] = ("public",)
    anonymous_role: Annotated[
        str | None, Meta(description="role of requests without a token; unset: they get 401"), LIVE, ADMINS_ONLY
    ] = None
    jwt: Annotated[JwtConfig, LIVE, ADMINS_ONLY] = JwtConfig()
    max_rows: Annotated[int, Meta(ge=1, le=1_000_000, description="rows of one response or embedded list"), LIVE] = (
        10_000
    )
    max_response_bytes: Annotated[
        int,
        Meta(ge=1_024, le=1_073_741_824, description="a larger response is refused before it leaves Postgres"),
        LIVE,
    ] = 67_108_864
    max_body_bytes: Annotated[int, Meta(ge=1, le=268_435_456, description="larger bodies get 413"), LIVE] = 1_048_576
    statement_timeout_s: Annotated[
        float, Meta(gt=0, le=3600, description="a statement that runs longer is stopped"), LIVE
    ] = 10.0
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(description='origins browsers may call from; empty: CORS is off; "*": every origin'),
        LIVE,
        ADMINS_ONLY,
    ] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError."""
        for schema in self.schemas:
            if is_private_schema(schema):
                raise ValueError(
                    f"schemas names {schema!r}, which is private: `mag` holds the node's own tables, and every `ext_…` "
                    "those of an extension. Put a view of what may be seen into a schema of yours"
                )
