"""The registry, read from its tables.

Boundary: rows in, records out. Invariant: an extension whose rows are not what the plane wrote is told apart by name,
is never guessed at, and keeps no other from being read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from magmobo.contracts.extensions import EXTENSION_CAPABILITIES
from magmobo.extensions.lifecycle.errors import RegistryDamaged
from magmobo.extensions.lifecycle.records import Decision, Entry, Key, Registry, Version
from magmobo.extensions.lifecycle.states import STORED, State
from magmobo.extensions.package.manifest import Manifest

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    Connection = AsyncConnection[tuple[Any, ...]]

_PLANE = "select generation, stopped from mag.extension_plane"
_KEYS = "select key_id, public, label, extract(epoch from added_at)::float8 from mag.extension_key order by key_id"
_KEPT = "select extension_id, signer from mag.extension_kept"
_GRANTS = """
select sha256, capability, state, scope::text, rate_per_minute, budget_per_day,
       extract(epoch from expires_at)::float8, hours, decided_by
from mag.extension_grant order by capability
"""
_VERSIONS = "select extension_id, sha256, version, signer, manifest::text from mag.extension_version order by added_at"
_EXTENSIONS = """
select e.id, e.state, e.resume_state, e.sha256, e.previous_sha256, e.pending_sha256, e.target_sha256, e.guest,
       extract(epoch from e.since)::float8, e.detail, e.halt_reason, e.guarded, e.delete_data,
       coalesce(extract(epoch from e.watch_until)::float8, 0), coalesce(u.uid, 0), coalesce(u.folder, ''),
       coalesce(s.settings::text, '{}'), coalesce(s.secrets, '{}')
from mag.extension e left join mag.extension_uid u on u.extension_id = e.id
left join mag.extension_setting s on s.extension_id = e.id order by e.id
"""


async def read_registry(connection: Connection) -> Registry:
    """All of it; the caller's transaction makes it one moment. Raises: RegistryDamaged when not even that can be
    told.
    """
    plane = await _rows(connection, _PLANE)
    if len(plane) != 1:
        raise RegistryDamaged("the plane", "its one row is not there")
    grants = _grouped(await _rows(connection, _GRANTS))
    versions = _grouped(await _rows(connection, _VERSIONS))
    keys = [Key(key_id, bytes(public), label, at_s) for key_id, public, label, at_s in await _rows(connection, _KEYS)]
    entries: dict[str, Entry] = {}
    damaged: dict[str, str] = {}
    for row in await _rows(connection, _EXTENSIONS):
        try:
            entries[row[0]] = _entry(row, _versions(row[0], versions.get(row[0], []), grants))
        except RegistryDamaged as error:
            damaged[row[0]] = error.reason
    return Registry(
        generation=plane[0][0],
        stopped=plane[0][1],
        entries=entries,
        keys={key.key_id: key for key in keys},
        kept={row[0]: row[1] for row in await _rows(connection, _KEPT)},
        damaged=damaged,
    )


def _grouped(rows: list[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    """First column -> the others of its rows."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for key, *columns in rows:
        found.setdefault(key, []).append(tuple(columns))
    return found


def _versions(
    extension_id: str, rows: list[tuple[Any, ...]], grants: dict[str, list[tuple[Any, ...]]]
) -> dict[str, Version]:
    found = {}
    for sha256, version, signer, text in rows:
        decisions = [_decision(extension_id, columns) for columns in grants.get(sha256, [])]
        manifest = _decoded(extension_id, text, Manifest)
        if manifest.id != extension_id:
            raise RegistryDamaged(extension_id, "a version of it is another extension's")
        if unknown := {one.name for one in manifest.capabilities} - EXTENSION_CAPABILITIES.keys():
            raise RegistryDamaged(extension_id, f"this node knows no capability {min(unknown)}")
        found[sha256] = Version(sha256, version, signer, manifest, {one.capability: one for one in decisions})
    return found


def _entry(row: tuple[Any, ...], versions: dict[str, Version]) -> Entry:
    (extension_id, state, resume, sha256, previous, pending, target, guest, since_s, detail, halt_reason, guarded,
     delete_data, watch_until_s, uid, folder, settings, secrets) = row  # fmt: skip
    if state not in STORED or (resume and resume not in STORED):
        raise RegistryDamaged(extension_id, f"it has no state {state!r}")
    if missing := {one for one in (sha256, previous, pending, target) if one} - versions.keys():
        raise RegistryDamaged(extension_id, f"version {min(missing)[:12]} is not there")
    return Entry(
        id=extension_id, state=State(state), resume=State(resume) if resume else None, sha256=sha256,
        previous=previous, pending=pending, target=target, guest=guest, since_s=since_s, detail=detail,
        halt_reason=halt_reason, guarded=guarded, delete_data=delete_data, watch_until_s=watch_until_s, uid=uid,
        folder=folder, versions=versions, settings=_decoded(extension_id, settings, dict[str, Any]), secrets=secrets,
    )  # fmt: skip


def _decision(extension_id: str, columns: tuple[Any, ...]) -> Decision:
    capability, state, scope, rate, budget, expires_at_s, hours, by = columns
    return Decision(
        capability=capability, state=state, scope=_decoded(extension_id, scope, dict[str, list[str]]),
        rate_per_minute=rate, budget_per_day=budget, expires_at_s=expires_at_s, hours=hours, by=by,
    )  # fmt: skip


def _decoded(extension_id: str, text: str, shape: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RegistryDamaged(extension_id, "what is noted of it is not what was written") from error


async def _rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode())).fetchall()
