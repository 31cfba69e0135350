"""Errors as responses: SQLSTATE to HTTP status, and any `MagError` to RFC 9457 problem+json with PostgREST's fields.

Invariant: a body holds only what the error's own text says; unexpected failures say nothing but their code.
Source: RFC 9457; PostgREST's error reference (table of SQLSTATE and HTTP status). Ours differ where a client can act on
the difference: 57014 is 504, and what is worth trying again (40001, 40P01, 53, 55P03, 57P) is 503 with Retry-After.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec
import psycopg

from magmobo.components.maggate.errors import (
    Conflict,
    DatabaseBusy,
    DatabaseRefused,
    GateError,
    IdentityError,
    NotSingular,
    PermissionDenied,
    RangeNotSatisfiable,
    ReadOnly,
    RequestRateLimited,
    StatementTimeout,
    TooManyAffected,
    TooMuch,
    UnexpectedFailure,
    ValueRefused,
)
from magmobo.components.maggate.sql import GUARD, SIZE_GUARD
from magmobo.contracts.errors import HookUnavailable, MagError

_GUARD_FAILURE = re.compile(f'"{GUARD}([0-9]+)"')
_SIZE_FAILURE = re.compile(f'"{SIZE_GUARD}[0-9]+"')
_CUSTOM_STATUS = re.compile(r"PT([1-5][0-9]{2})")

# Longest prefix wins. A class of None hides Postgres' words behind `UnexpectedFailure`.
_BY_SQLSTATE: dict[str, tuple[type[DatabaseRefused] | None, int]] = {
    "": (DatabaseRefused, 500),
    "08": (DatabaseBusy, 503),
    "0L": (PermissionDenied, 403),
    "0P": (PermissionDenied, 403),
    "21": (ValueRefused, 400),
    "22": (ValueRefused, 400),
    "23": (ValueRefused, 400),
    "23503": (Conflict, 409),
    "23505": (Conflict, 409),
    "23P01": (Conflict, 409),
    "25006": (ReadOnly, 405),
    "28": (PermissionDenied, 403),
    "40": (DatabaseBusy, 503),
    "42": (DatabaseRefused, 400),
    "42501": (PermissionDenied, 403),
    "42P01": (DatabaseRefused, 404),
    "42P17": (DatabaseRefused, 500),
    "428C9": (ValueRefused, 400),
    "44": (PermissionDenied, 403),
    "53": (DatabaseBusy, 503),
    "54": (ValueRefused, 400),
    "55": (DatabaseRefused, 400),
    "55P03": (DatabaseBusy, 503),
    "57": (DatabaseBusy, 503),
    "57014": (StatementTimeout, 504),
    "58": (None, 500),
    "F0": (None, 500),
    "P0001": (DatabaseRefused, 400),
    "XX": (None, 500),
}


def translate(error: psycopg.Error, *, anonymous: bool, singular: bool, max_response_bytes: int) -> GateError:
    """The gateway's error for what Postgres said. `singular` tells which guard a failed cast belongs to."""
    state = error.sqlstate
    if state is None:  # the connection failed: the text may name hosts
        return DatabaseBusy("08000", 503, "the connection to the database was lost")
    message = error.diag.message_primary or ""
    guard = _GUARD_FAILURE.search(message) if state == "22P02" else None
    if guard is not None:
        row_count = int(guard.group(1))
        return NotSingular(row_count) if singular else TooManyAffected(row_count)
    if state == "22P02" and _SIZE_FAILURE.search(message):
        return TooMuch("bytes in the response", max_response_bytes)
    custom = _CUSTOM_STATUS.fullmatch(state)
    if custom is not None:
        return DatabaseRefused(state, int(custom.group(1)), message, error.diag.message_detail, error.diag.message_hint)
    kind, status = next(_BY_SQLSTATE[state[:size]] for size in range(5, -1, -1) if state[:size] in _BY_SQLSTATE)
    if kind is None:
        return UnexpectedFailure()
    if state == "42501" and anonymous:
        status = HTTPStatus.UNAUTHORIZED
    return kind(state, status, message, error.diag.message_detail, error.diag.message_hint)


def problem(error: MagError, hide: Callable[[str], str] = str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body that tell a client about `error`; `hide` takes secrets of the node out of its words."""
    status = error.status if isinstance(error, GateError) else error.http_status
    document: dict[str, Any] = {
        "type": f"urn:magmobo:error:{error.code}",
        "title": error.title if isinstance(error, GateError) else HTTPStatus(status).phrase,
        "status": status,
        "detail": hide(f"{error}. {error.next_step()}"),
        "mag_code": error.code,
        "code": error.postgrest_code if isinstance(error, GateError) else error.code,
        "message": hide(str(error)),
        "details": hide(error.details) if isinstance(error, GateError) and error.details else None,
        "hint": hide(error.hint) if isinstance(error, GateError) and error.hint else None,
    }
    headers = [(b"content-type", b"application/problem+json; charset=utf-8")]
    if status == HTTPStatus.UNAUTHORIZED:
        challenge = error.challenge if isinstance(error, IdentityError) else "Bearer"
        headers.append((b"www-authenticate", challenge.encode()))
    if error.retryable:
        wait_s = error.retry_s if isinstance(error, RequestRateLimited | HookUnavailable) else 0.0
        headers.append((b"retry-after", b"%d" % max(1, ceil(wait_s))))  # whole seconds, never too few
    if isinstance(error, RangeNotSatisfiable) and error.total is not None:
        headers.append((b"content-range", b"*/%d" % error.total))
    return status, headers, msgspec.json.encode(document)
