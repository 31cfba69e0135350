"""What the keys of a file are called in the vault: `DATABASE_URL` is `database_url`, nested keys are joined by dots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from magmobo.admin.secret_files.errors import SecretFileError, SecretNamesRefused
from magmobo.contracts.secret import Secret
from magmobo.kernel.vault.driver import MAX_SECRET_BYTES
from magmobo.kernel.vault.names import NAME

MAX_SECRETS = 500
"""As many as one command `vault:import` takes."""


class Found(Struct, frozen=True):
    """One value of a file. `keys` lead to it; `place` is for people (`line 3`, `entry 3`) and holds no part of it."""

    keys: Sequence[str]
    value: str
    place: str


def as_secrets(path: Path, found: Iterable[Found]) -> Mapping[str, Secret]:
    """The secrets by name, in the order of the file. Empty values are no secrets and are left out.

    Raises: SecretNamesRefused with every key that makes no name, or one that is taken; SecretFileError when there are
        none, or too many, or one is too long.
    """
    secrets: dict[str, Secret] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    for entry in found:
        name = ".".join(entry.keys).lower()
        if not NAME.fullmatch(name):
            problems.append(f"{entry.place}: its key makes no name of a secret")
        elif name in places:
            problems.append(f'{entry.place}: "{name}" stands in {places[name]} already')
        elif len(entry.value.encode()) > MAX_SECRET_BYTES:
            problems.append(f'{entry.place}: "{name}" is longer than {MAX_SECRET_BYTES} bytes')
        else:
            places[name] = entry.place
            if entry.value:
                secrets[name] = Secret(entry.value)
    if problems:
        raise SecretNamesRefused(path, problems)
    if not secrets:
        raise SecretFileError(path, "it holds no secrets")
    if len(secrets) > MAX_SECRETS:
        raise SecretFileError(path, f"it holds {len(secrets)} secrets, more than the {MAX_SECRETS} of one import")
    return secrets
