"""What a line of the audit log is: its bytes, its hash, the head of the chain. No I/O.

A line is one JSON object with the fields of `AuditRecord` in their order, `hash` last, and a newline. The hash is the
sha256 of the line's bytes before `,"hash":"`, so it covers every byte but itself and is checked without decoding:
another spelling of the same JSON is another line. `prev_hash` is the hash of the line before. Source: CONTRACTS 9.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw, Struct, json

from magmobo.contracts.audit import AuditAction, AuditRecord, Severity
from magmobo.contracts.capabilities import Actor

GENESIS = "0" * 64
HEAD_KEY = "head"
MAX_PAYLOAD_BYTES = 16_384
MAX_LINE_BYTES = 32_768
MAX_TEXT_CHARACTERS = 200
_EXCERPT_CHARACTERS = 2_048
_HEX_DIGITS = frozenset("0123456789abcdef")
_EMPTY_END = b',"hash":""}'
_END_BYTES = len(_EMPTY_END) + 64
# Whatever a payload holds, the action is recorded: what JSON cannot say is left out and named.
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class Head(Struct, frozen=True):
    """How far the log is durable, as the state store keeps it: the last record's number and hash.

    `keys` are the fingerprints of the keys that signed checkpoints, `signed_seq` is the number of the last checkpoint.
    """

    seq: int
    hash: str
    keys: tuple[str, ...] = ()
    signed_seq: int = 0


class Draft(Struct, frozen=True):
    """A record before it has a place in the chain. `payload` is JSON, masked and bounded."""

    id: str
    action: AuditAction
    payload: bytes
    created_at: str
    severity: Severity
    actor: str
    ip_address: str | None = None
    trace_id: str = ""


class _Line(Struct, frozen=True):
    """As `AuditRecord`, with the payload already as JSON."""

    id: str
    org_id: None
    project_id: None
    user_id: None
    action: str
    payload: Raw
    ip_address: str | None
    immutable: bool
    legal_hold_id: None
    created_at: str
    seq: int
    severity: str
    category: str
    actor: str
    trace_id: str
    prev_hash: str
    hash: str = ""


class Link(Struct, frozen=True):
    """What the chain asks of a line."""

    seq: int
    prev_hash: str
    action: str
    payload: Raw


_encode = json.Encoder().encode


def head_from(value: Any) -> Head | None:
    """A head as the state store holds it, None for anything else."""
    try:
        head = msgspec.convert(value, Head)
    except msgspec.ValidationError:
        return None
    return head if head.seq >= 0 and _is_hash(head.hash) else None


def draft(
    action: AuditAction,
    payload: Mapping[str, Any],
    *,
    actor: Actor,
    mask: Callable[[Any], Any],
    time_s: float,
    trace_id: str = "",
    severity: Severity | None = None,
) -> Draft:
    """A record in waiting. Nothing that is written of it was not masked. `time_s` is seconds since 1970 UTC."""
    return Draft(
        id=_uuid4(),
        action=action,
        payload=_payload_text(payload, mask),
        created_at=rfc3339(time_s),
        severity=severity or action.severity,
        actor=_short(actor.name, mask),
        ip_address=_address(actor.address),
        trace_id=_short(trace_id, mask),
    )


def seal(draft: Draft, seq: int, prev_hash: str) -> tuple[bytes, str]:
    """The whole line, newline included, and its hash."""
    line = _Line(
        draft.id, None, None, None, draft.action.name, Raw(draft.payload), draft.ip_address, True, None,
        draft.created_at, seq, draft.severity, draft.action.category, draft.actor, draft.trace_id, prev_hash,
    )  # fmt: skip
    body = _encode(line)[: -len(_EMPTY_END)]
    digest = sha256(body).hexdigest()
    return body + b',"hash":"' + digest.encode() + b'"}\n', digest


def end_of(digest: str) -> bytes:
    """The last bytes of the line whose hash is `digest`, newline included."""
    return b',"hash":"' + digest.encode() + b'"}\n'


def hash_of(line: bytes) -> str | None:
    """The hash of a line (without its newline) when it carries the right one, else None."""
    digest = sha256(line[:-_END_BYTES]).hexdigest()
    return digest if line[-_END_BYTES:] == b',"hash":"' + digest.encode() + b'"}' else None


def link_of(line: bytes) -> Link | None:
    """The chain's part of a line, None when it is no record."""
    try:
        link: Link = _decoder(Link).decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return link


def record_of(line: bytes) -> AuditRecord | None:
    """The record on a line, None when it is none. Whether it is genuine is for `verify` to say."""
    try:
        record: AuditRecord = _decoder(AuditRecord).decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return record


@cache
def _decoder(line_type: type[Struct]) -> json.Decoder[Any]:
    return json.Decoder(line_type)  # made when a line is read first: resolving the fields costs 0.3 ms


def _is_hash(text: str) -> bool:
    return len(text) == 64 and _HEX_DIGITS.issuperset(text)


def rfc3339(time_s: float) -> str:
    """`2026-01-31T23:59:59.123456Z`."""
    whole_s, micro = divmod(round(time_s * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole_s))}.{micro:06d}Z"


def _uuid4() -> str:
    """As `uuid.uuid4`, whose module costs more to load than the kernel's start-up can spare."""
    number = bytearray(os.urandom(16))
    number[6] = number[6] & 0x0F | 0x40
    number[8] = number[8] & 0x3F | 0x80
    text = number.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _payload_text(payload: Mapping[str, Any], mask: Callable[[Any], Any]) -> bytes:
    """The payload as a JSON object of at most `MAX_PAYLOAD_BYTES`, masked; a marker stands for what did not fit."""
    try:
        text = _encode(_storable(mask(payload)))
    except _UNENCODABLE as error:
        return _encode({"unreadable": type(error).__name__})
    if len(text) > MAX_PAYLOAD_BYTES:
        excerpt = text[:_EXCERPT_CHARACTERS].decode(errors="ignore")
        return _encode(
            {"truncated": True, "size_bytes": len(text), "sha256": sha256(text).hexdigest(), "excerpt": excerpt}
        )
    return text if text.startswith(b"{") else _encode({"value": Raw(text)})


def _storable(value: Any) -> Any:
    """Without what UTF-8 or Postgres's jsonb cannot hold: half surrogate pairs and NUL."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, Mapping):
        return {_clean(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_storable(item) for item in value]
    return value


def _clean(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def _short(text: str, mask: Callable[[Any], Any]) -> str:
    return _clean(str(mask(text)))[:MAX_TEXT_CHARACTERS] if text else ""


def _address(text: str) -> str | None:
    """An address that Postgres takes as inet, None for anything else."""
    if not text:
        return None
    from ipaddress import ip_address

    try:
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return None
