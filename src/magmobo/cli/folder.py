"""The data folder of the node that a command is about, found without the settings reader where that is easy.

Invariant: what this finds is what `node.settings.read_settings` would find, or it finds nothing. Whatever could make
the settings wrong (an odd variable, a key of [kernel] it does not know, a file that is no TOML) is left to those who
say so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from magmobo.admin.data_folder import DataFolder, open_regular

_DATA_DIR, _ENVIRONMENT = "MAG_KERNEL__DATA_DIR", "MAG_KERNEL__ENVIRONMENT"
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_DEFAULT_DIR, _DEFAULT_ENVIRONMENT = "mag_data", "development"
_MAX_FILE_BYTES = 1_048_576


def find_folder(data_dir: str | None, working_dir: Path, environ: Mapping[str, str]) -> DataFolder | None:
    """The data folder, or None when it takes the whole settings reader to tell."""
    said = _said_by_environment(environ)
    told = None if said is None else _told_by_files(working_dir, said.get("environment"))
    if said is None or told is None:
        return None
    path = data_dir if data_dir is not None else (told | said).get("data_dir", _DEFAULT_DIR)
    if not path or path.startswith("~"):
        return None
    return DataFolder(working_dir / path)


def _said_by_environment(environ: Mapping[str, str]) -> dict[str, str] | None:
    """What the environment says of [kernel]; None when any variable of ours may be a mistake or says more, and where
    credentials may.
    """
    if environ.get(_CREDENTIALS):
        return None
    for variable in environ:
        if not variable.startswith("MAG_") or "__" not in variable:
            continue
        if variable.startswith("MAG_KERNEL__") and variable not in (_DATA_DIR, _ENVIRONMENT):
            return None
        table, _, key = variable.rpartition("__")
        if key.endswith("_FILE") or _is_set_twice(table, environ):
            return None
    said = {"data_dir": environ.get(_DATA_DIR), "environment": environ.get(_ENVIRONMENT)}
    if not _may_stand(said["environment"]):
        return None
    return {key: value for key, value in said.items() if value is not None}


def _is_set_twice(table: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable sets as one value what another sets a part of."""
    while "__" in table:
        if table in environ:
            return True
        table = table.rpartition("__")[0]
    return False


def _told_by_files(working_dir: Path, environment: str | None) -> dict[str, str] | None:
    """What the files say of [kernel], as the settings reader would find and merge them; None when one is odd."""
    told: dict[str, str] = {}
    main_file = working_dir / "mag.toml"
    if os.path.lexists(main_file):
        main = _kernel_table(main_file)
        if main is None:
            return None
        told = main
    name = environment or told.get("environment", _DEFAULT_ENVIRONMENT)
    for path in _more_files(working_dir, name):
        more = _kernel_table(path, is_secret=path.parent.name == "secrets")
        if more is None or "environment" in more:
            return None
        told |= more
    return told


def _more_files(working_dir: Path, environment: str) -> Iterator[Path]:
    named = working_dir / f"mag.{environment}.toml"
    if os.path.lexists(named):
        yield named
    folder = working_dir / "mag.d"
    if folder.exists():
        yield from sorted(folder.glob("*.toml"))
    secrets = working_dir / "secrets" / f"{environment}.toml"
    if os.path.lexists(secrets):
        yield secrets


def _kernel_table(path: Path, *, is_secret: bool = False) -> dict[str, str] | None:
    """The table [kernel] of a file, when it says no more than where the data folder is and which environment."""
    import tomllib  # only where there is a file

    try:
        with os.fdopen(open_regular(path, follow=True), "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
            is_exposed = is_secret and os.fstat(file.fileno()).st_mode & 0o077
        if is_exposed or not content.strip() or len(content) > _MAX_FILE_BYTES:
            return None
        table: Any = tomllib.loads(content.decode()).get("kernel", {})
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(table, dict) or not table.keys() <= {"data_dir", "environment"}:
        return None
    if not all(isinstance(value, str) for value in table.values()) or not _may_stand(table.get("environment")):
        return None
    return table


def _may_stand(environment: str | None) -> bool:
    return environment is None or _NAME.fullmatch(environment) is not None
