"""What operators hear of extensions: how they are, what they ask for and have, what an upgrade would change.

Boundary: facts only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct


class GrantInfo(Struct, frozen=True):
    """What an extension asks for, or has. `state`: `granted`, `pending` (asked, not approved), `revoked`, `refused`
    (an optional one that is planned). `scope` names tables, hosts, channels, topics; `new`: the running version does
    not ask for it; `used`: calls since the node started; `hours`: only then, in UTC.
    """

    capability: str
    risk: str
    state: str
    reason: str
    optional: bool
    scope: Mapping[str, Sequence[str]]
    rate_per_minute: int
    expires_at: str = ""
    new: bool = False
    used: int = 0
    budget_per_day: int | None = None
    hours: str = ""


class ExtensionInfo(Struct, frozen=True):
    """One extension on a line. `state` is its place in the lifecycle, `health` separate from it; `pending_version`:
    an upgrade that waits for approval; `signer`: the id of a key, `signer_name` what the key was called when it was
    trusted; `tier`: the sandbox its worker runs in; `since` is RFC 3339 in UTC.
    """

    id: str
    name: str
    version: str
    state: str
    health: str
    risk: str
    signer: str
    tier: str
    since: str
    restarts: int
    detail: str = ""
    pending_version: str = ""
    signer_name: str = ""


class BindingInfo(Struct, frozen=True):
    """One thing that an extension takes part in: a `hook`, `event`, `endpoint`, `command` or `job`."""

    kind: str
    name: str
    detail: str


class LimitInfo(Struct, frozen=True):
    """How much of a capability that it has is used up; one that comes with another counts for itself. `refused`: calls
    that the rate or the budget kept back on the node that answers, since it started; `limited`: what keeps its calls
    back now, `budget`, `rate` or empty. With a budget, `spent_today` are the calls of this day (UTC) on all nodes, each
    of which tells of its own every second, and `renews_at` is when the day ends, RFC 3339 in UTC.
    """

    capability: str
    rate_per_minute: int
    refused: int = 0
    limited: str = ""
    budget_per_day: int | None = None
    spent_today: int = 0
    renews_at: str = ""


class WaitInfo(Struct, frozen=True):
    """What waits for a limit on what the extension may ask: a subscription (`event:NAME`) or a job (`job:NAME`), for
    one of `capabilities` (empty: the node does not know which), by its `budget` or `rate`, until then at the latest.
    `behind` are the events or jobs that wait with it. An operator who raises the limit, or takes the capability back,
    lets it go on at once.
    """

    handler: str
    capabilities: Sequence[str]
    kind: str
    until: str
    behind: int


class Widening(Struct, frozen=True):
    """More of a capability that an extension has: `kind` is `tables`, `hosts`, `channels`, `topics`,
    `rate_per_minute` or `endpoints`; `what` names it.
    """

    capability: str
    kind: str
    what: str


class UpgradeInfo(Struct, frozen=True):
    """What an upgrade would change. `added` and `removed` are capabilities, those that come with others too; `risk` is
    the highest of what is added or widened, empty when nothing is. A binding that is another one is both added and
    removed. `reads` and `writes` are as in `ExtensionDetail`, with what waits for approval granted.
    """

    version: str
    risk: str
    added: Sequence[str]
    widened: Sequence[Widening]
    removed: Sequence[str]
    bindings_added: Sequence[BindingInfo]
    bindings_removed: Sequence[BindingInfo]
    reads: Sequence[str]
    writes: Sequence[str]


class ExtensionDetail(Struct, frozen=True):
    """Everything the node knows about one extension. `reads` and `writes` are tables, in words; `backlog` are events
    that wait for it, `dead` those it could not take; `figures` are counts since the node started. `sha256` is the
    package that counts, `pending_sha256` that of an upgrade which waits for approval, or empty; `upgrade` is what that
    would change. `limits` are of each capability that it has; `waits` says what of it waits for one.
    """

    info: ExtensionInfo
    description: str
    author: str
    sha256: str
    grants: Sequence[GrantInfo]
    reads: Sequence[str]
    writes: Sequence[str]
    bindings: Sequence[BindingInfo]
    settings: Mapping[str, Any]
    versions: Sequence[str]
    backlog: int
    dead: int
    figures: Mapping[str, float]
    pending_sha256: str = ""
    limits: Sequence[LimitInfo] = ()
    waits: Sequence[WaitInfo] = ()
    upgrade: UpgradeInfo | None = None


class ExtensionPage(Struct, frozen=True):
    """Every extension of the node. `tier` is the best sandbox that this machine gives, `stopped`: the kill switch for
    all is on.
    """

    extensions: Sequence[ExtensionInfo]
    tier: str
    stopped: bool


class Staged(Struct, frozen=True):
    """How much of a package has arrived; `complete`: all of it, with the digest that was announced."""

    received_bytes: int
    complete: bool


class LogLine(Struct, frozen=True):
    """One line that an extension logged, or that the plane logged of it."""

    at: str
    level: str
    message: str
    fields: Mapping[str, Any]


class ExtensionLog(Struct, frozen=True):
    """Lines, oldest first; `cursor` goes into the next question."""

    lines: Sequence[LogLine]
    cursor: int


class TrustedKey(Struct, frozen=True):
    """A key whose packages may be installed. `public` is base64 of the 32 raw bytes."""

    key_id: str
    name: str
    public: str
    added_at: str


class TrustedKeys(Struct, frozen=True):
    """Every trusted key."""

    keys: Sequence[TrustedKey]


class DoctorLine(Struct, frozen=True):
    """One thing that the sandbox wants of this machine."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class SandboxReport(Struct, frozen=True):
    """`tier` is `S3` to `S0`; `lines` say what makes it that, and how to get more."""

    tier: str
    lines: Sequence[DoctorLine]


class DeadLetter(Struct, frozen=True):
    """An event that an extension could not take after all its tries, or a gap in what it was told."""

    seq: int
    topic: str
    at: str
    tries: int
    error: str


class DeadLetters(Struct, frozen=True):
    """Oldest first; `waits` says what is not told of its events for now, and loses none."""

    letters: Sequence[DeadLetter]
    waits: Sequence[WaitInfo] = ()


class RunResult(Struct, frozen=True):
    """What a command of an extension answered."""

    result: Any
