"""Where the embedded cluster lives, and as whom it runs.

A plain user has everything in `data_dir/postgres`. Postgres refuses root, and an unprivileged user cannot enter root's
0700 data folder: a node started by root keeps its cluster in `system_dir/<id>/cluster`, owned by a uid that nobody else
has. Either way `data_dir/postgres` holds the records: place.json, passwords.json, runtime.json, postgres.log.
Invariant: place.json is written before anything is created and names it for good; a recorded cluster that is gone is an
error, never a reason to begin a new one.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from msgspec import Struct

from magmobo.components.magds.errors import ClusterDamaged, DiskFull, PlaceRefused
from magmobo.contracts.folders import exchangeable_at, make_passable

FREE_UIDS = range(60_800, 61_184)  # assigned to nobody by Debian, Fedora or systemd
NO_SPACE = (28, 122)  # ENOSPC, EDQUOT


class Owner(Struct, frozen=True):
    """The unprivileged user that Postgres runs as when the node is root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Place:
    """`home` is a folder for the cluster and what belongs beside it; `owner` None means: as the node itself."""

    home: Path
    owner: Owner | None = None
    initialised: bool = False

    @property
    def cluster(self) -> Path:
        """Postgres' own data folder (PGDATA)."""
        return self.home / "cluster"


class _Record(Struct, frozen=True, forbid_unknown_fields=True):
    """place.json. `home` is relative to its folder, so that a plain user's data folder may be moved."""

    home: str
    owner: Owner | None
    initialised: bool


class Passwords(Struct, frozen=True):
    """Generated once; `superuser` is for supervision only, `node` for the node's own role."""

    superuser: str
    node: str


class Records:
    """The files in `data_dir/postgres`. Every write is atomic and on disk before it returns."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "postgres"
        self.log = self.folder / "postgres.log"
        self.runtime = self.folder / "runtime.json"

    def create(self) -> None:
        """Raises: PlaceRefused when the data folder cannot be written, DiskFull."""
        with writing(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(13, "it may not be written by this user")
            self.write(self.folder / ".writable", b"")
            (self.folder / ".writable").unlink()

    def place(self) -> Place | None:
        """The recorded place; None before the first start.

        Raises: ClusterDamaged when the record cannot be read, or is missing although a cluster is there.
        """
        path = self.folder / "place.json"
        if not path.exists():
            if (self.folder / "cluster").exists():
                raise ClusterDamaged(self.folder, "place.json is missing")
            return None
        try:
            record = msgspec.json.decode(path.read_bytes(), type=_Record)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ClusterDamaged(self.folder, f"place.json cannot be read ({error})") from error
        return Place(self.folder / record.home, record.owner, record.initialised)

    def save_place(self, place: Place) -> None:
        """Raises: PlaceRefused, DiskFull."""
        home = "." if place.home == self.folder else str(place.home)
        with writing(self.folder):
            record = _Record(home, place.owner, place.initialised)
            self.write(self.folder / "place.json", msgspec.json.encode(record))

    def passwords(self, *, create: bool) -> Passwords:
        """The generated passwords, made now when `create` and there are none.

        Raises: ClusterDamaged when they are missing or unreadable; PlaceRefused, DiskFull.
        """
        path = self.folder / "passwords.json"
        if not path.exists():
            if not create:
                raise ClusterDamaged(self.folder, "passwords.json is missing")
            with writing(self.folder):
                made = Passwords(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
                self.write(path, msgspec.json.encode(made))
        try:
            return msgspec.json.decode(path.read_bytes(), type=Passwords)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ClusterDamaged(self.folder, "passwords.json cannot be read") from None  # the cause may quote them

    def write(self, path: Path, content: bytes) -> None:
        """Replace a file as a whole, mode 0600."""
        draft = path.with_name(f"{path.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)


def choose_place(records: Records, system_dir: Path) -> Place:
    """The recorded place, or a new one, recorded.

    Raises: PlaceRefused, ClusterDamaged, DiskFull.
    """
    records.create()
    place = records.place()
    if place is None:
        place = Place(records.folder) if os.geteuid() != 0 else _claim(records, system_dir)
        records.save_place(place)
    if place.owner is None and os.geteuid() == 0:
        place = _adopt(place)
    if place.initialised and not (place.cluster / "PG_VERSION").exists():
        raise ClusterDamaged(place.cluster, "there is no Postgres cluster, though one was made there")
    if place.cluster.exists() and (uid := place.cluster.stat().st_uid) != (
        place.owner.uid if place.owner else os.geteuid()
    ):
        raise PlaceRefused(place.cluster, f"it belongs to another user (uid {uid})")
    return place


def _adopt(place: Place) -> Place:
    """A cluster made by a plain user, now started by root, keeps running as that user."""
    stat = (place.cluster if place.cluster.exists() else place.home).stat()
    if stat.st_uid == 0:
        raise PlaceRefused(place.home, "it was made for a plain user but belongs to root; start as that user")
    return replace(place, owner=Owner(stat.st_uid, stat.st_gid))


def _claim(records: Records, system_dir: Path) -> Place:
    """A new folder below `system_dir` with a uid that no account and no other cluster has."""
    with writing(system_dir):
        check_unshared(system_dir)
        make_passable(system_dir)
        check_unshared(system_dir)
        # Who can open the lock can take it, and keep the first start of every node waiting: nobody else may.
        lock = os.open(system_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(lock, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            uid = _free_uid(system_dir)
            home = system_dir / secrets.token_hex(6)
            make_passable(home)
            records.write(home / "owner", f"{uid}\n{records.folder.parent}\n".encode())  # for people: whose is this?
        finally:
            os.close(lock)
        return Place(home, Owner(uid, uid))


def check_unshared(folder: Path) -> None:
    """See that only root and the caller's own user can exchange this folder or what is in it. Raises: PlaceRefused."""
    if (there := exchangeable_at(folder)) is not None:
        raise PlaceRefused(folder, f"others than root may write to {there}")


def _free_uid(system_dir: Path) -> int:
    texts = [path.read_text().split() for path in system_dir.glob("*/owner")]
    taken = {int(words[0]) for words in texts if words and words[0].isdecimal()}
    taken |= {path.stat().st_uid for path in system_dir.glob("*/cluster")}  # whatever its record says
    accounts = {entry.pw_uid for entry in pwd.getpwall()}
    for uid in FREE_UIDS:
        if uid not in taken and uid not in accounts:
            return uid
    raise PlaceRefused(system_dir, "all user ids set aside for clusters are taken")


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn the system's refusals to write into our errors: DiskFull, PlaceRefused."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(place, error.strerror or str(error)) from error
        raise PlaceRefused(place, error.strerror or str(error)) from error
