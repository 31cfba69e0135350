"""What the tests of kept versions share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magmobo.contracts.configuration import ConfigVersion
from magmobo.kernel.config.sealing import Sealer
from magmobo.kernel.config.source import Base, Runtime, RuntimeSetting
from magmobo.kernel.config.version_folder import VersionFolder

SECRET = "hunter2-planted-here"
PATCH = RuntimeSetting("debug", "ana", 1_700_000_000.5, expires_at_s=1_700_000_600.0)


def folder_in(data_dir: Path, *, keep: int = 50) -> VersionFolder:
    """As a start makes it."""
    return VersionFolder(data_dir / "config", sealer=Sealer(data_dir / "secrets" / "config.key"), keep=lambda: keep)


def base_of(number: int, **values: Any) -> Base:
    return Base(
        {"magds": {"dsn": f"postgres://app:{SECRET}@db/{number}"}, **values},
        {"magds.dsn": "mag.toml line 3"},
        {"magds.dsn": "file"},
        f"digest {number}",
    )


def runtime_of(number: int) -> Runtime:
    return Runtime({"magws.limit": RuntimeSetting(str(number), "ana", float(number))}, {"logging.level": PATCH})


def meta_of(number: int, **fields: Any) -> ConfigVersion:
    told = {"at": f"2026-01-01T00:00:{number % 60:02d}Z", "trigger": "file", "actor": "ana", "note": f"note {number}"}
    return ConfigVersion(
        version=number, changed_keys=("magds.dsn",), running=True, restorable=False, **{**told, **fields}
    )


def file_of(data_dir: Path, number: int) -> Path:
    return data_dir / "config" / "versions" / f"{number:08d}.sealed"
