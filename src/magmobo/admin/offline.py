"""What operators can do while no node runs: look at a data folder, ask what a database allows, remove us from it.

Boundary: nothing here changes a data folder, and only `detach` changes a database. What is looked for in a database is
the storage plane's knowledge; this is the door to it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.admin.errors import NodeNotRunning
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import NodeStatus
from magmobo.contracts.secret import Secret
from magmobo.kernel import selftest

_COMFORTABLE_BYTES = 512 * 1_048_576


class Check(Struct, frozen=True):
    """One thing `mag doctor` looked at. `remedy` is the next step, empty when all is well."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


async def examine_folder(folder: DataFolder) -> Sequence[Check]:
    """Whether a node could work on `folder`, and whether one does."""
    checks = [_folder_check(folder), _room_check(folder), *_machine_checks(), await _node_check(folder)]
    if checks[0].ok and folder.path.is_dir():
        checks.insert(1, _as_check(selftest.check_permissions(folder.path)))
    return checks


async def examine_database(dsn: Secret) -> Sequence[Check]:
    """What the database allows. Raises: the storage plane's errors when it cannot be asked at all."""
    from magmobo.components.magds.abilities import examine

    return [Check(found.name, found.ok, found.detail, found.remedy) for found in await examine(dsn.reveal())]


class Traces(Struct, frozen=True):
    """`objects`: what of ours is in a database, a line each. `kept`: what was left there and why."""

    objects: Sequence[str]
    kept: Sequence[str]


async def detach(dsn: Secret, *, dry_run: bool) -> Traces:
    """What of ours is in the database; unless `dry_run`, it has been removed when this returns.

    Raises: the storage plane's errors.
    """
    from magmobo.components.magds import detach as storage

    found = await (storage.plan if dry_run else storage.apply)(dsn.reveal())
    return Traces(found.objects, found.kept)


def embedded_access(folder: DataFolder) -> tuple[str, str]:
    """Connection string (it holds a password) of the embedded database, and the psql that fits it.

    Raises: the storage plane's errors, as when no embedded server runs there.
    """
    from magmobo.components.magds.access import embedded_access as access

    found = access(folder.path)
    return found.dsn, found.psql


def _folder_check(folder: DataFolder) -> Check:
    name, path = "data folder", folder.path
    try:
        found = path.stat()
    except FileNotFoundError:
        return Check(name, True, f"{path} is not there yet; `mag up` makes it")
    except OSError as error:
        return Check(name, False, f"{path}: {error.strerror}", "Choose another folder with --data-dir.")
    if not stat.S_ISDIR(found.st_mode):
        return Check(name, False, f"{path} is not a folder", "Choose another folder with --data-dir.")
    if found.st_uid != os.geteuid():
        return Check(name, False, f"{path} belongs to uid {found.st_uid}", "Run mag as its owner, or chown it.")
    if not os.access(path, os.W_OK | os.X_OK):
        return Check(name, False, f"{path} cannot be written", "Make it writable, or choose another with --data-dir.")
    return Check(name, True, str(path))


def _room_check(folder: DataFolder) -> Check:
    there = next(place for place in (folder.path, *folder.path.parents) if place.exists())
    free_bytes = shutil.disk_usage(there).free
    detail = f"{free_bytes / 1_073_741_824:.1f} GiB free"
    if free_bytes < _COMFORTABLE_BYTES:
        return Check("disk", False, detail, f"Keep {_COMFORTABLE_BYTES // 1_048_576} MiB free on the disk of {there}.")
    return Check("disk", True, detail)


def _machine_checks() -> Sequence[Check]:
    clock = _as_check(selftest.check_clock(time.time(), None))
    if clock.ok:
        kept = {True: "kept by NTP", False: "not kept by NTP", None: "nobody says whether by NTP"}
        clock = Check(clock.name, True, f"{clock.detail}, {kept[selftest.clock_is_synchronised()]}")
    return [clock, _as_check(selftest.check_descriptors(0)), _sandbox_check()]


def _sandbox_check() -> Check:
    """What there is to lock extensions in with. A node without extensions wants none of it, so nothing here is bad."""
    found = selftest.examine_sandbox()
    here = [f"{one.name} {one.detail}" if one.detail != "yes" else one.name for one in found if one.ok]
    missing = [f"no {one.name}: {one.detail} ({one.remedy.rstrip('.')})" for one in found if not one.ok]
    return Check("sandbox for extensions", True, "; ".join([", ".join(here), *missing] if here else missing))


def _as_check(finding: selftest.Finding) -> Check:
    return Check(finding.name, finding.ok, finding.detail, finding.remedy)


async def _node_check(folder: DataFolder) -> Check:
    try:
        answer = await asyncio.to_thread(AdminClient(folder, timeout_s=2).status)
        node = msgspec.convert(answer, NodeStatus)
    except NodeNotRunning:
        return Check("node", True, "none runs on this data folder")
    except msgspec.ValidationError:
        return Check("node", False, "its answer is not one we understand", "Is it of the version of this `mag`?")
    except MagError as error:
        return Check("node", False, f"{error} [{error.code}]", error.next_step())
    sick = [part.name for part in node.components if part.state != "running" or part.health == "unhealthy"]
    if node.state == "ready" and not sick:
        return Check("node", True, f"ready, version {node.version}")
    return Check("node", False, f"{node.state}; not well: {', '.join(sick) or 'nothing'}", "Read `mag logs`.")
