"""One version of an extension as the running plane knows it, and what it may do now.

Boundary: facts only. `Installed.grants` is the one thing that changes while it runs: it is replaced as a whole, and
whoever decides reads it at each call, so that a revocation counts from the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Raw, Struct

from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.scopes import asked_for

T = TypeVar("T")


class Grant(Struct, frozen=True, kw_only=True):
    """One capability that an operator gave. `scope`: `tables`, `hosts`, `channels`, `topics` -> names, in the words of
    the manifest; a kind that is not there grants what the manifest asks for. Times are seconds since 1970 UTC; `hours`
    is `HH:MM-HH:MM` UTC or empty.
    """

    capability: str
    scope: Mapping[str, Sequence[str]] = {}
    rate_per_minute: int
    budget_per_day: int | None = None
    expires_at_s: float | None = None
    hours: str = ""


@dataclass(slots=True)
class Installed:
    """One version. `guest` names its storage; empty when it has no capability of the database. `grants` holds implied
    capabilities too, each with the scope of the one that implies it.
    """

    id: str
    version: str
    sha256: str
    manifest: Manifest
    code_dir: Path
    signer: str
    guest: str = ""
    grants: Mapping[str, Grant] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def actor(self) -> str:
        """Its name in records."""
        return f"extension:{self.id}"

    def scope(self, capability: str, kind: str) -> Sequence[str]:
        """Names of this kind (`tables`, `hosts`, `channels`, `topics`) that the capability is granted for now."""
        grant = self.grants.get(capability)
        if grant is None:
            return ()
        granted = grant.scope.get(kind)
        if granted is not None:
            return granted
        asked = self.manifest.request(capability)
        return asked_for(capability, kind, () if asked is None else getattr(asked, kind))


class Caller(Struct, frozen=True):
    """On whose behalf the node does something. `chain` is the path of hooks that led here, outermost first, each
    `<extension id>/<point>`; `deadline_s` is of the loop's clock.
    """

    extension: Installed
    chain: tuple[str, ...]
    deadline_s: float


class ApiMethod(Struct, frozen=True):
    """One method of the node that extensions may call. `capability` empty: every extension may. `args` is a frozen
    Struct that refuses unknown fields; `handle` gets who calls and the decoded arguments, and answers with what msgpack
    can say. It raises MagError, whose code and text the extension is told.
    """

    name: str
    capability: str
    args: type[Struct]
    handle: Callable[[Caller, Any], Coroutine[Any, Any, Any]]


class Question(Struct, frozen=True):
    """One question to a worker: `handler` as in `magx.wire.Call`, `argument` a map in msgpack."""

    handler: str
    argument: Raw
    timeout_s: float
    chain: tuple[str, ...] = ()
