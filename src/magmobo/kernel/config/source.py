"""Where a configuration comes from, as the kernel sees it: whoever owns the process reads the layers and merges them.

Boundary: shapes and a Protocol, no I/O. Two steps, so that what is set at run time never takes an unfinished edit of a
file with it: `read` looks at files and environment anew, `build` makes a `Config` of what was read before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from magmobo.kernel.config.loader import Config, with_section


class Base(Struct, frozen=True):
    """Every layer below those of run time, merged: references still unresolved, nothing validated.

    `values` is section -> key -> value and may hold secrets: it is never shown, and stored only sealed. `origins` and
    `layers` say by key where a value comes from (`ConfigEntry.origin`, `.layer`). `digest` is equal for equal values.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    layers: Mapping[str, str]
    digest: str


def grafted(base: Base, other: Base, name: str) -> Base:
    """The base with one section as the other one has it, an empty one where it has none; the digest stays."""
    return Base(
        {**base.values, name: other.values.get(name, {})},
        with_section(base.origins, other.origins, name),
        with_section(base.layers, other.layers, name),
        base.digest,
    )


class RuntimeSetting(Struct, frozen=True):
    """What `config:set` said of one key. `value` is text as it was given; `expires_at_s` (seconds since 1970) is of a
    patch, None of an override; `at_s` is when it was set.
    """

    value: str
    actor: str
    at_s: float
    expires_at_s: float | None = None


class Runtime(Struct, frozen=True):
    """The two layers above all others, by key; a key may stand in both, then the patch counts."""

    overrides: Mapping[str, RuntimeSetting] = {}
    patches: Mapping[str, RuntimeSetting] = {}


class SecretRead(Struct, frozen=True):
    """A reference that was followed: `reference` is `vault:name` and the like, `key` the setting it is for."""

    key: str
    reference: str
    version: int | None = None


class Built(Struct, frozen=True):
    """A configuration that is valid, and what was read for it; the reads are audited before it counts."""

    config: Config
    reads: Sequence[SecretRead] = ()


class Start(Struct, frozen=True):
    """What the configuration that a node starts with was made of.

    `reads` are audited before a component is made. `held_digest`: `base` is that of version `held_version`, which
    counts although the files say something else, of this digest (`versions.Held`); empty: `base` is the files'.
    `last_version`: the highest number that a version ever got here. `expired`: keys of patches that ended while the
    node was away, which `runtime` has no more. `leaves_out`: a safe start, which remembers `runtime` and the version
    that is held, and begins without them.
    """

    base: Base
    runtime: Runtime = Runtime()
    reads: Sequence[SecretRead] = ()
    held_digest: str = ""
    held_version: int = 0
    last_version: int = 0
    expired: Sequence[str] = ()
    leaves_out: bool = False


class ConfigSource(Protocol):
    """The layers of one node. Both may take their time: they work in a thread. Neither changes anything."""

    async def read(self, *, accept_removed: bool = False) -> Base:
        """Files, environment, credentials and command line as they are now.

        accept_removed: a file that was there and is gone, or that is the beginning of what it was, is no mistake.
        Raises: ConfigError with every problem of the files.
        """
        ...

    async def build(self, base: Base, runtime: Runtime) -> Built:
        """Merge, resolve references, validate. Raises: ConfigError with every problem, VaultUnavailable."""
        ...

    def add_section(self, name: str, section: type[Struct]) -> None:
        """There is a component that has this section. It is built where somebody says something of it, and wherever its
        defaults are enough.
        """
        ...

    async def accepted(self, base: Base) -> None:
        """This base counts now: files are compared with it from now on."""
        ...
