"""Who asks: an Authorization header in, an `Identity` or an error out. No I/O.

Rules: only the configured algorithms and the one configured key count, whatever the token's header says; a token is
looked at for its claims only after its signature held; the role must be one the database lets requests use, checked on
every request, so that a revoked role ends at once. Verified tokens are remembered by their hash until they expire.
Source: RFC 7519, RFC 8725.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from magmobo.components.maggate.config import JwtConfig
from magmobo.components.maggate.errors import (
    JwtSettingsRefused,
    RoleRefused,
    TokenExpired,
    TokenForged,
    TokenForOthers,
    TokenMalformed,
    TokenMissing,
    TokenNotYetValid,
    TokenUnverifiable,
)
from magmobo.contracts.clock import Clock
from magmobo.contracts.planes import Identity

MAX_TOKEN_BYTES = 8_192
MAX_REMEMBERED = 1_024
_MIN_SECRET_BYTES = 32
_MIN_RSA_BITS = 2_048

_BEARER = re.compile(rb"(?i:bearer) +([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*) *")
_SYMMETRIC = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

# PyJWT checks the signature; times and audience are checked here, against the node's clock and with codes of their own.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True, "verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False,
    "verify_iss": False, "verify_sub": False, "verify_jti": False,
}  # fmt: skip


class _Verified(msgspec.Struct, frozen=True):
    """What a genuine token said. `expires_at` is seconds since 1970, or None."""

    role: str | None
    claims: bytes
    expires_at: float | None


class Authenticator:
    """Tells who a request is from. `roles` gives the roles that requests may use now."""

    def __init__(
        self, config: JwtConfig, anonymous_role: str | None, roles: Callable[[], frozenset[str]], clock: Clock
    ) -> None:
        """Raises: JwtSettingsRefused."""
        self._config, self._roles, self._clock = config, roles, clock
        self._key, self._algorithms = _verification_key(config)
        self._anonymous = None if not anonymous_role else _anonymous(anonymous_role, config.role_claim)
        self._remembered: dict[bytes, _Verified] = {}

    @property
    def verifies_tokens(self) -> bool:
        """Whether a key is configured."""
        return self._key is not None

    def identify(self, authorization: bytes | None) -> tuple[Identity, bool]:
        """The identity a request runs as, and whether it is the anonymous one without a token.

        Raises: IdentityError, one class per cause.
        """
        if authorization is None:
            if self._anonymous is None:
                raise TokenMissing
            return self._allowed(self._anonymous), True
        found = _BEARER.fullmatch(authorization) if len(authorization) <= MAX_TOKEN_BYTES else None
        if found is None:
            raise TokenMalformed
        token = self._verify(found.group(1))
        if token.role is None:
            if self._anonymous is None:
                raise RoleRefused
            return self._allowed(Identity(self._anonymous.role, token.claims)), False
        return self._allowed(Identity(token.role, token.claims)), False

    def _allowed(self, identity: Identity) -> Identity:
        if identity.role not in self._roles():
            raise RoleRefused
        return identity

    def _verify(self, token: bytes) -> _Verified:
        if self._key is None:
            raise TokenUnverifiable
        digest = hashlib.sha256(token).digest()
        verified = self._remembered.get(digest)
        if verified is None:
            verified = self._read(token)
            while len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[digest] = verified
        elif self._is_past(verified.expires_at):
            del self._remembered[digest]
            raise TokenExpired
        return verified

    def _read(self, token: bytes) -> _Verified:
        try:
            claims = jwt.decode(token, self._key, algorithms=list(self._algorithms), options=_SIGNATURE_ONLY)
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError) as error:
            raise TokenForged from error
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise TokenMalformed from error
        expires_at = self._check_times(claims)
        self._check_audience(claims.get("aud"))
        role = claims.get(self._config.role_claim)
        if role is not None and not isinstance(role, str):
            raise TokenMalformed
        if role is None and self._anonymous is not None:
            claims[self._config.role_claim] = self._anonymous.role
        try:
            return _Verified(role, msgspec.json.encode(claims), expires_at)
        except (ValueError, RecursionError) as error:  # lone surrogates, numbers beyond JSON's
            raise TokenMalformed from error

    def _check_times(self, claims: dict[str, Any]) -> float | None:
        expires_at = _time_claim(claims, "exp")
        if self._is_past(expires_at):
            raise TokenExpired
        latest_s = self._clock.time_s() + self._config.leeway_s
        for name in ("nbf", "iat"):
            begins_at = _time_claim(claims, name)
            if begins_at is not None and begins_at > latest_s:
                raise TokenNotYetValid
        return expires_at

    def _is_past(self, expires_at: float | None) -> bool:
        return expires_at is not None and expires_at <= self._clock.time_s() - self._config.leeway_s

    def _check_audience(self, audience: Any) -> None:
        wanted = self._config.audience
        if not wanted:
            return
        named = audience if isinstance(audience, list) else [audience]
        if wanted not in named:
            raise TokenForOthers


def _anonymous(role: str, role_claim: str) -> Identity:
    return Identity(role, msgspec.json.encode({role_claim: role}))


def _time_claim(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise TokenMalformed
    return float(value)


def _verification_key(config: JwtConfig) -> tuple[Any, tuple[str, ...]]:
    """The key and the algorithms it may be used with; the two kinds never mix, so a public key is never an HMAC key."""
    if config.secret is not None and config.public_key is not None:
        raise JwtSettingsRefused("secret and public_key are both set; tokens are verified with one of them")
    if config.secret is not None:
        key: Any = config.secret.reveal().encode()
        if len(key) < _MIN_SECRET_BYTES:
            raise JwtSettingsRefused(f"secret is shorter than {_MIN_SECRET_BYTES} bytes")
        fitting: tuple[str, ...] = _SYMMETRIC
    elif config.public_key is not None:
        key, fitting = _public_key(config.public_key)
    else:
        if config.algorithms:
            raise JwtSettingsRefused("algorithms are set, but neither secret nor public_key is")
        return None, ()
    strange = [name for name in config.algorithms if name not in fitting]
    if strange:
        raise JwtSettingsRefused(f"algorithms {', '.join(strange)} do not fit the key; it allows {', '.join(fitting)}")
    return key, config.algorithms or fitting[:1]


def _public_key(pem: str) -> tuple[Any, tuple[str, ...]]:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise JwtSettingsRefused("public_key is not a PEM public key") from error
    if isinstance(key, RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise JwtSettingsRefused(f"public_key is an RSA key of less than {_MIN_RSA_BITS} bits")
        return key, _RSA
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key, (_CURVES[key.curve.name],)
    if isinstance(key, Ed25519PublicKey):
        return key, ("EdDSA",)
    raise JwtSettingsRefused("public_key is neither RSA, nor EC on P-256, P-384 or P-521, nor Ed25519")
