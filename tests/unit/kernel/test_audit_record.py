"""What stands on a line of the audit log: fields, hash, and payloads of every kind. No disk."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.kernel.audit_chain import OPERATOR

from magmobo.contracts.audit import AuditRecord
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.operations import OPERATIONS
from magmobo.contracts.secret import Secret
from magmobo.kernel.audit.catalogue import CATALOGUE
from magmobo.kernel.audit.record import (
    GENESIS,
    MAX_LINE_BYTES,
    MAX_PAYLOAD_BYTES,
    draft,
    hash_of,
    link_of,
    record_of,
    rfc3339,
    seal,
)
from magmobo.kernel.redact import redact

COLUMNS = [
    "id",
    "org_id",
    "project_id",
    "user_id",
    "action",
    "payload",
    "ip_address",
    "immutable",
    "legal_hold_id",
    "created_at",
]
OURS = ["seq", "severity", "category", "actor", "trace_id", "prev_hash", "hash"]

texts = st.text(st.characters(categories=None), max_size=50)  # half surrogate pairs and NUL too
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)


def line_of(payload: Any, **around: Any) -> bytes:
    item = draft(CATALOGUE["config.patch"], payload, **({"actor": OPERATOR, "mask": redact, "time_s": 1.7e9} | around))
    return seal(item, 7, GENESIS)[0]


def test_a_line_holds_the_fields_of_the_contract_in_their_order() -> None:
    written = json.loads(line_of({"key": "kernel.log", "ttl_s": 60}, trace_id="trace-1"))
    assert list(written) == COLUMNS + OURS == list(AuditRecord.__struct_fields__)
    uuid.UUID(written.pop("id"))
    assert len(written.pop("hash")) == 64
    assert written == {
        "org_id": None, "project_id": None, "user_id": None, "action": "config.patch",
        "payload": {"key": "kernel.log", "ttl_s": 60}, "ip_address": "127.0.0.1", "immutable": True,
        "legal_hold_id": None, "created_at": "2023-11-14T22:13:20.000000Z", "seq": 7, "severity": "warning",
        "category": "config", "actor": "uid:1000", "trace_id": "trace-1", "prev_hash": GENESIS,
    }  # fmt: skip


def test_the_hash_can_be_checked_with_nothing_of_ours() -> None:
    line = line_of({"a": 1})
    body, _, rest = line.rpartition(b',"hash":"')
    assert rest == sha256(body).hexdigest().encode() + b'"}\n'
    assert json.loads(body + b"}")["seq"] == 7


def test_two_records_never_have_the_same_id() -> None:
    ids = {json.loads(line_of({}))["id"] for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {uuid.UUID(id_).version for id_ in ids} == {4}


@given(values | st.dictionaries(texts, values, max_size=5))
@example({"nan": float("nan"), "inf": float("inf"), "big": 10**400, "bytes": b"\0\xff"})
@example({"deep": eval("[" * 60 + "]" * 60)})
@example({"a\ud800": "\udfff\0", "": {1: 2, None: 3}})
@example({"object": object(), "set": {1, 2}, "secret": Secret("x")})
def test_any_payload_becomes_one_sound_line(payload: Any) -> None:
    for mask in (redact, lambda value: value):
        line = line_of(payload, mask=mask)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert len(line) <= MAX_LINE_BYTES
        assert b"\\u0000" not in line.replace(b"\\\\", b"")
        record, link = record_of(line), link_of(line)
        assert record is not None
        assert link is not None
        assert hash_of(line[:-1]) == record.hash
        assert isinstance(record.payload, dict)
        json.loads(line)


@given(st.text(st.characters(categories=None), max_size=300), st.text(max_size=300), st.text(max_size=60))
@example("x" * 300, "y" * 300, "10.0.0.1; drop table")
def test_what_callers_say_of_themselves_is_bounded(name: str, trace_id: str, address: str) -> None:
    actor = Actor(name=name, role=Role.VIEWER, via="control", address=address)
    record = record_of(line_of({}, actor=actor, trace_id=trace_id, mask=lambda value: value))
    assert record is not None
    assert len(record.actor) <= 200
    assert len(record.trace_id) <= 200
    assert "\0" not in record.actor + record.trace_id


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        ("unix", None),
        ("1.2.3.4:80", None),
    ],
)
def test_only_what_postgres_takes_as_inet_is_an_address(address: str, written: str | None) -> None:
    record = record_of(line_of({}, actor=structs.replace(OPERATOR, address=address)))
    assert record is not None
    assert record.ip_address == written


def test_no_secret_is_written() -> None:
    line = line_of(
        {
            "password": "hunter2",
            "dsn": "postgresql://u:hunter2@h/db",
            "note": "see postgresql://u:hunter2@h/db",
            "key": Secret("hunter2"),
        },
        trace_id="Bearer hunter2hunter2",
    )
    assert b"hunter2" not in line


def test_a_mask_that_fails_lets_nothing_through() -> None:
    def broken(value: Any) -> Any:
        if isinstance(value, dict):
            raise ValueError("hunter2")
        return value

    record = record_of(line_of({"password": "hunter2"}, mask=broken))
    assert record is not None
    assert record.payload == {"unreadable": "ValueError"}


def test_a_payload_that_is_too_large_leaves_a_marker_with_its_size_and_hash() -> None:
    payload = {"rows": ["x" * 100] * 1_000}
    text = json.dumps(payload, separators=(",", ":")).encode()
    record = record_of(line_of(payload))
    assert record is not None
    assert record.payload["truncated"] is True
    assert record.payload["size_bytes"] == len(text)
    assert record.payload["sha256"] == sha256(text).hexdigest()
    assert text.decode().startswith(record.payload["excerpt"])
    fits = {"text": "x" * (MAX_PAYLOAD_BYTES - len('{"text":""}'))}
    record = record_of(line_of(fits, mask=lambda value: value))
    assert record is not None
    assert record.payload == fits


@given(st.floats(min_value=0, max_value=4e9))
def test_times_are_rfc_3339_in_utc(time_s: float) -> None:
    text = rfc3339(time_s)
    assert text.endswith("Z")
    assert abs(datetime.fromisoformat(text).timestamp() - time_s) < 1e-5
    assert datetime.fromisoformat(text).tzinfo == UTC


def test_the_catalogue_holds_what_the_contract_names() -> None:
    assert {
        "kernel.boot", "kernel.stop", "kernel.reset", "component.restart", "component.stop", "component.start",
        "component.disable", "component.enable", "component.register", "component.unregister", "component.quarantined",
        "diagnostics.dump", "security.denied", "security.breakglass", "config.reload", "config.patch", "secret.write",
        "audit.break_found", "audit.checkpoint", "audit.torn_record",
    } <= set(CATALOGUE)  # fmt: skip
    assert CATALOGUE["security.breakglass"].severity == "critical"
    for name, action in CATALOGUE.items():
        assert name == action.name
        assert len(name) <= 100
        assert action.category


def test_every_audited_command_of_the_node_is_in_the_catalogue_and_fails_closed() -> None:
    """But for the stop: a node whose disk is full must still be one that its operators can stop."""
    audited = [command.audit_action for command in OPERATIONS if command.audit_action]
    assert [action for action in audited if not CATALOGUE[action].privileged] == ["kernel.stop"]
