"""What the registry holds, as the plane reads it: extensions, their versions, what each version may do.

Boundary: facts. Times are seconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from magmobo.extensions.lifecycle.states import State
from magmobo.extensions.package.manifest import Manifest

GRANTED, PENDING, REVOKED, REFUSED = "granted", "pending", "revoked", "refused"
"""What was decided about a capability. `refused`: an optional one whose host operation is not built."""


class Decision(Struct, frozen=True, kw_only=True):
    """What was decided about one capability of one version. `scope` names every kind, an empty one grants nothing of
    that kind; `by` is the actor, or `plane` for what is granted without asking.
    """

    capability: str
    state: str
    scope: Mapping[str, Sequence[str]]
    rate_per_minute: int
    budget_per_day: int | None = None
    expires_at_s: float | None = None
    hours: str = ""
    by: str


Decisions = Mapping[str, Decision]
"""Capability -> what was decided."""


class Version(Struct, frozen=True):
    """One version of an extension. `sha256` is of its package, and names it."""

    sha256: str
    version: str
    signer: str
    manifest: Manifest
    decisions: Decisions


class Entry(Struct, frozen=True, kw_only=True):
    """One extension. `previous`, `pending` and `target` are sha256 of versions: the one before, the one that waits for
    approval, and the one that a change under way leads to; empty: there is none. `resume` is where a change under way
    goes back to.

    `halt_reason`: it must not run, whatever its state says, and comes to rest as soon as somebody can see to that.
    `folder` is the name of its own files' place, another one after each removal
    with data, so that nobody finds what somebody left.

    `guarded`: its hooks that fail closed deny while it is disabled, because the plane stopped it, not an operator.
    """

    id: str
    state: State
    resume: State | None
    sha256: str
    previous: str
    pending: str
    target: str
    guest: str
    since_s: float
    detail: str
    halt_reason: str
    guarded: bool
    delete_data: bool
    watch_until_s: float
    uid: int
    folder: str
    versions: Mapping[str, Version]
    settings: Mapping[str, Any]
    secrets: Sequence[str]

    @property
    def current(self) -> Version:
        """The version that counts."""
        return self.versions[self.sha256]

    @property
    def may_run(self) -> bool:
        """Whether a node is to run it."""
        return self.state is State.ENABLED and not self.halt_reason

    def with_decisions(self, sha256: str, decisions: Decisions) -> Entry:
        """The same with other decisions about one version."""
        version = replace(self.versions[sha256], decisions=decisions)
        return replace(self, versions={**self.versions, sha256: version})


class Gone(Struct, frozen=True):
    """An extension that was uninstalled with its data; `folder` as in `Entry`."""

    id: str
    folder: str


class Key(Struct, frozen=True):
    """A trusted key; `public` are the 32 raw bytes."""

    key_id: str
    public: bytes
    label: str
    added_at_s: float


class Registry(Struct, frozen=True):
    """Everything, as of one moment. `generation` is another number after every change; `stopped`: the kill switch for
    all is on; `kept` names who signed extensions whose data stayed behind, `damaged` says why one cannot be read.
    """

    generation: int = -1
    stopped: bool = False
    entries: Mapping[str, Entry] = {}
    keys: Mapping[str, Key] = {}
    kept: Mapping[str, str] = {}
    damaged: Mapping[str, str] = {}

    @property
    def public_keys(self) -> Mapping[str, bytes]:
        """Key id -> raw public bytes."""
        return {key.key_id: key.public for key in self.keys.values()}

    def is_without(self, entry: Entry) -> bool:
        """Whether this extension was uninstalled since, also where another one of its name is there now."""
        now = self.entries.get(entry.id)
        return entry.id not in self.damaged if now is None else now.folder != entry.folder

    def knows(self, extension_id: str) -> bool:
        """Whether there is an extension of this name, or data of one."""
        return extension_id in self.entries or extension_id in self.damaged or extension_id in self.kept

    def enabled_manifests(self) -> Mapping[str, Manifest]:
        """Id -> manifest of every extension that is enabled."""
        return {entry.id: entry.current.manifest for entry in self.entries.values() if entry.may_run}

    def digests(self) -> frozenset[str]:
        """sha256 of every version there is."""
        return frozenset(sha256 for entry in self.entries.values() for sha256 in entry.versions)


NOTHING = Registry()
"""The registry of a database that has none."""
