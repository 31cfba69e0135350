"""Tokens signed with the right key whose content was made to break something or to become somebody else."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator

import pytest
from tests.integration.maggate.support import SECRET, Stack, load_schema, running_stack


@pytest.fixture
async def stack(dsn: str) -> AsyncIterator[Stack]:
    load_schema(dsn)
    async with running_stack(dsn) as running:
        yield running


def signed(claims: bytes, head: bytes = b'{"alg":"HS256"}') -> dict[str, str]:
    parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, claims))
    signature = base64.urlsafe_b64encode(hmac.new(SECRET.encode(), parts, hashlib.sha256).digest()).rstrip(b"=")
    return {"Authorization": f"Bearer {(parts + b'.' + signature).decode()}"}


@pytest.mark.parametrize(
    "claims",
    [
        b'{"role":"gate_user","role":"gate_root"}',
        b'{"role":"GATE_USER"}',
        b'{"role":"\\"gate_user\\""}',
        b'{"role":"gate_user\\u0000"}',
        b'{"role":"gate_user "}',
        b'{"role":""}',
        b'{"role":"none"}',
        b'{"role":"NONE"}',
        b'{"role":"public"}',
        b'{"role":"gate_login"}',
        b'{"role":"postgres"}',
        b'{"role":"pg_read_all_data"}',
        b'{"role":"pg_execute_server_program"}',
        b'{"role":["gate_user"]}',
        b'{"role":{"a":1}}',
        b'{"role":1}',
        b'{"role":true}',
        b'{"role":"\\ud800"}',
        b'{"role":"gate_user","exp":"9999999999"}',
        b'{"role":"gate_user","exp":[9999999999]}',
        b'{"role":"gate_user","exp":true}',
        b'{"role":"gate_user","exp":NaN}',
        b'{"role":"gate_user","exp":Infinity}',
        b'{"role":"gate_user","exp":1e400}',
        b'{"role":"gate_user","exp":-1}',
        b'{"role":"gate_user","exp":' + b"9" * 4_000 + b"}",
        b'{"role":"gate_user","nbf":99999999999}',
        b'{"role":"gate_user","a":' + b"[" * 2_500 + b"]" * 2_500 + b"}",
        b'{"role":"gate_user","a":' + b"9" * 5_000 + b"}",
        b'"gate_user"',
        b"[]",
        b"",
    ],
    ids=lambda claims: repr(claims[:45]),
)
async def test_no_claim_makes_a_caller_somebody_else_or_breaks_the_gateway(stack: Stack, claims: bytes) -> None:
    answer = await stack.get("airlines?limit=1", signed(claims))

    assert answer.status in (401, 403), answer
    assert b"gate_" not in answer.body


@pytest.mark.parametrize(
    "head",
    [
        b'{"alg":"none"}',
        b'{"alg":"NONE"}',
        b'{"alg":"HS256","alg":"none"}',
        b'{"alg":"RS256"}',
        b'{"alg":["HS256"]}',
        b'{"alg":null}',
        b"{}",
        b'{"alg":"HS256","crit":["exp"]}',
        b'{"alg":"HS256","crit":["other"],"other":1}',
        b'{"alg":"HS256","b64":false,"crit":["b64"]}',
        b'{"alg":"HS256","x":' + b"[" * 2_500 + b"]" * 2_500 + b"}",
        b"null",
    ],
    ids=lambda head: repr(head[:40]),
)
async def test_no_header_changes_how_a_token_is_checked(stack: Stack, head: bytes) -> None:
    answer = await stack.get("airlines?limit=1", signed(b'{"role":"gate_user"}', head))

    assert answer.status == 401, answer


async def test_claims_reach_policies_as_the_role_was_read(stack: Stack) -> None:
    """The last of two equal keys counts, for us and for Postgres alike: no policy sees another subject than we did."""
    answer = await stack.get("notes?select=owner", signed(b'{"role":"gate_user","sub":"ann","sub":"bob"}'))

    assert answer.status == 200
    assert {row["owner"] for row in answer.json} == {"bob"}
