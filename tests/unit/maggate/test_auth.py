"""Who is let in, as whom, and with which error the others are turned away."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.maggate.auth import MAX_REMEMBERED, Authenticator
from magmobo.components.maggate.config import JwtConfig
from magmobo.components.maggate.errors import (
    IdentityError,
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
from magmobo.contracts.secret import Secret
from magmobo.testing.clock import FakeClock

NOW_S = 1_700_000_000
SECRET = "s" * 40
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def gate(
    anonymous: str | None = None, roles: set[str] | None = None, clock: Any = None, **config: Any
) -> Authenticator:
    allowed = frozenset(roles if roles is not None else {"anon", "member"})
    values: dict[str, Any] = {"secret": Secret(SECRET), "leeway_s": 5} | config
    settings = JwtConfig(**values)
    return Authenticator(settings, anonymous, lambda: allowed, clock or FakeClock(time_s=NOW_S))


def header(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256") -> bytes:
    return b"Bearer " + jwt.encode(claims, key, algorithm=algorithm).encode()


def raw(head: dict[str, Any], claims: bytes, key: bytes) -> bytes:
    """A token with any header and payload, signed with HMAC-SHA256."""
    parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(head).encode(), claims))
    signature = hmac.new(key, parts, hashlib.sha256).digest()
    return b"Bearer " + parts + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")


def test_a_genuine_token_gives_its_role_and_claims() -> None:
    identity, anonymous = gate().identify(header({"role": "member", "sub": "ann", "exp": NOW_S + 60}))

    assert (identity.role, anonymous) == ("member", False)
    assert json.loads(identity.claims) == {"role": "member", "sub": "ann", "exp": NOW_S + 60}


def test_without_a_token_there_is_the_anonymous_role_or_nothing() -> None:
    identity, anonymous = gate("anon").identify(None)

    assert (identity.role, identity.claims, anonymous) == ("anon", b'{"role":"anon"}', True)
    with pytest.raises(TokenMissing):
        gate().identify(None)
    with pytest.raises(RoleRefused):
        gate("gone").identify(None)


def test_a_token_without_a_role_runs_as_the_anonymous_role_with_its_claims() -> None:
    identity, anonymous = gate("anon").identify(header({"sub": "ann"}))

    assert (identity.role, anonymous) == ("anon", False)
    assert json.loads(identity.claims) == {"sub": "ann", "role": "anon"}
    with pytest.raises(RoleRefused):
        gate().identify(header({"sub": "ann"}))


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"role": "member", "exp": NOW_S - 6}, TokenExpired),
        ({"role": "member", "nbf": NOW_S + 6}, TokenNotYetValid),
        ({"role": "member", "iat": NOW_S + 6}, TokenNotYetValid),
        ({"role": "member", "aud": "them"}, TokenForOthers),
        ({"role": "member", "aud": ["them", 5]}, TokenForOthers),
        ({"role": "member"}, TokenForOthers),
        ({"role": "root", "aud": "us"}, RoleRefused),
        ({"role": "none", "aud": "us"}, RoleRefused),
        ({"role": "", "aud": "us"}, RoleRefused),
        ({"role": 5, "aud": "us"}, TokenMalformed),
        ({"role": ["member"], "aud": "us"}, TokenMalformed),
    ],
)
def test_claims_that_do_not_hold(claims: dict[str, Any], error: type[IdentityError]) -> None:
    with pytest.raises(error):
        gate(audience="us").identify(header(claims))


@pytest.mark.parametrize(
    "claims",
    [b'{"role":"member","exp":"soon"}', b'{"role":"member","exp":true}', b'{"role":"member","exp":NaN}',
     b'{"role":"member","exp":1e999}', b'{"role":"member","x":"\\ud800"}', b"[1]", b"nonsense", b"\xff",
     b'{"role":"member","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}"],
)  # fmt: skip
def test_signed_payloads_that_are_no_claims(claims: bytes) -> None:
    with pytest.raises(TokenMalformed):
        gate().identify(raw({"alg": "HS256", "typ": "JWT"}, claims, SECRET.encode()))


def test_leeway_forgives_a_few_seconds() -> None:
    claims = {"role": "member", "exp": NOW_S - 4, "nbf": NOW_S + 4, "iat": NOW_S + 4, "aud": ["x", "us"]}

    assert gate(audience="us").identify(header(claims))[0].role == "member"


def test_a_remembered_token_ends_with_its_time_and_with_its_role() -> None:
    clock, roles = FakeClock(time_s=NOW_S), {"member"}
    config = JwtConfig(secret=Secret(SECRET), leeway_s=0)
    door = Authenticator(config, None, lambda: frozenset(roles), clock)
    token = header({"role": "member", "exp": NOW_S + 10})

    assert door.identify(token)[0] == door.identify(token)[0]
    roles.clear()
    with pytest.raises(RoleRefused):
        door.identify(token)
    roles.add("member")
    clock.step_wall_time(10)
    with pytest.raises(TokenExpired):
        door.identify(token)
    with pytest.raises(TokenExpired):
        door.identify(token)


def test_memory_of_tokens_is_bounded() -> None:
    door = gate()
    for number in range(MAX_REMEMBERED + 10):
        door.identify(header({"role": "member", "n": number}))

    assert len(door._remembered) == MAX_REMEMBERED


def test_forged_tokens() -> None:
    payload = b'{"role":"member"}'
    genuine = header({"role": "member"})
    for token in (
        header({"role": "member"}, "x" * 40),
        header({"role": "member"}, SECRET * 2, "HS512"),
        raw({"alg": "none"}, payload, SECRET.encode()),
        raw({"alg": "None"}, payload, SECRET.encode()),
        raw({"alg": "HS256"}, payload, b"").rpartition(b".")[0] + b".",
        raw({"alg": "RS256"}, payload, SECRET.encode()),
        genuine[:-4] + (b"AAAA" if genuine[-4:] != b"AAAA" else b"BBBB"),
    ):
        with pytest.raises(TokenForged):
            gate().identify(token)


def test_a_public_key_is_never_an_hmac_secret() -> None:
    text = pem(RSA_KEY)
    door = gate(secret=None, public_key=text)

    for key in (text.encode(), text.strip().encode()):
        with pytest.raises(TokenForged):
            door.identify(raw({"alg": "HS256"}, b'{"role":"member"}', key))


@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")])
def test_public_keys(key: Any, algorithm: str) -> None:
    door = gate(secret=None, public_key=pem(key))

    assert door.identify(header({"role": "member"}, key, algorithm))[0].role == "member"
    with pytest.raises(TokenForged):
        door.identify(header({"role": "member"}))


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer x", b"Basic eDp4", b"Bearer a.b.c.d", b"Bearer a.b.c, Bearer a.b.c", b"\xff",
              b"Bearer " + b"a" * 9_000 + b".b.c", b"Bearer ..", b"Bearer a..", b"Bearer a.b.\n"],
)  # fmt: skip
def test_malformed_headers(value: bytes) -> None:
    with pytest.raises(TokenMalformed):
        gate("anon").identify(value)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda text: b"Bearer " + text))
def test_any_header_is_refused_with_an_error_of_ours(value: bytes) -> None:
    with pytest.raises(IdentityError):
        gate("anon").identify(value)


def test_without_a_key_no_token_counts() -> None:
    with pytest.raises(TokenUnverifiable):
        gate("anon", secret=None).identify(header({"role": "member"}))


@pytest.mark.parametrize(
    "config",
    [{"secret": Secret("short")}, {"public_key": pem(RSA_KEY)}, {"algorithms": ("RS256",)}, {"algorithms": ("none",)},
     {"secret": None, "public_key": "-----BEGIN PUBLIC KEY-----"}, {"secret": None, "algorithms": ("HS256",)},
     {"secret": None, "public_key": pem(EC_KEY), "algorithms": ("HS256",)},
     {"secret": None, "public_key": pem(rsa.generate_private_key(65537, 1024))}],
)  # fmt: skip
def test_settings_that_contradict_each_other(config: dict[str, Any]) -> None:
    with pytest.raises(JwtSettingsRefused) as caught:
        gate(**config)

    assert SECRET not in str(caught.value)
