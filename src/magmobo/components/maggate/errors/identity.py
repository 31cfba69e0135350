"""Who asks: errors of authentication (MAG-GATE-009 to 019)."""

from __future__ import annotations

from typing import ClassVar

from magmobo.components.maggate.errors.base import GateError


class IdentityError(GateError):
    """The caller could not be told apart from anybody else."""

    code = "MAG-GATE-009"
    http_status = 401
    title = "Authentication failed"
    rest_code = "PGRST301"
    challenge: ClassVar[str] = 'Bearer error="invalid_token"'
    text: ClassVar[str] = "The token was refused"

    def __str__(self) -> str:
        return self.text


class TokenMissing(IdentityError):
    """The request carries no token and no anonymous role is configured."""

    code = "MAG-GATE-010"
    rest_code = "PGRST302"
    title = "Authentication is required"
    challenge = "Bearer"
    text = "Anonymous access is disabled"
    remedy = "Send `Authorization: Bearer <JWT>`, or let the operator set maggate.anonymous_role."


class TokenMalformed(IdentityError):
    """The Authorization header holds no well-formed bearer token."""

    code = "MAG-GATE-011"
    text = "The Authorization header holds no well-formed bearer token"
    remedy = "Send one header `Authorization: Bearer <JWT>` with three base64url parts joined by dots."


class TokenForged(IdentityError):
    """The token's signature does not match the configured key and algorithms."""

    code = "MAG-GATE-012"
    text = "The token's signature or algorithm does not match the configured key"
    remedy = "Sign the token with the key and an algorithm of maggate.jwt."


class TokenExpired(IdentityError):
    """The token's `exp` lies in the past."""

    code = "MAG-GATE-013"
    rest_code = "PGRST303"
    text = "JWT expired"
    remedy = "Ask for a new token."


class TokenNotYetValid(IdentityError):
    """The token's `nbf` or `iat` lies in the future."""

    code = "MAG-GATE-014"
    rest_code = "PGRST303"
    text = "JWT not yet valid"
    remedy = "Compare the clocks of the issuer and of this machine; maggate.jwt.leeway_s forgives a few seconds."


class TokenForOthers(IdentityError):
    """The token's `aud` does not name this service."""

    code = "MAG-GATE-015"
    rest_code = "PGRST303"
    text = "JWT not in audience"
    remedy = "Ask the issuer for a token whose `aud` holds the value of maggate.jwt.audience."


class TokenUnverifiable(IdentityError):
    """A token was sent, but this node has no key to verify tokens with."""

    code = "MAG-GATE-016"
    rest_code = "PGRST300"
    text = "This server has no key to verify tokens with"
    remedy = "Set maggate.jwt.secret or maggate.jwt.public_key, or send no token."


class RoleRefused(IdentityError):
    """The token is genuine, but its role is not one that requests may use."""

    code = "MAG-GATE-017"
    http_status = 403
    rest_code = "42501"
    title = "The role may not be used"
    challenge = ""
    text = "The token's role may not be used by requests"
    remedy = "Put a role into the token that exists and that the node's database user was granted."
