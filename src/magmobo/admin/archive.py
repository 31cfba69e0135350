"""The archive of `mag diagnostics:dump`: what a running node tells, and what lies in its data folder in any case.

Boundary: reads the data folder and the settings files beside the working folder, writes one new file (0600). Invariant:
every text goes through the `Masker`, which knows the secrets of this folder, of the settings and of the environment;
each part and so the whole is bounded, and the newest lines stay; a part that cannot be read says so in its place.
The folder may be another user's and the node a stranger: links, pipes and devices are not read, and what a node calls
its parts names nothing outside of the archive.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import re
import stat
import tarfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct, to_builtins

from magmobo import __version__
from magmobo.admin import audit
from magmobo.admin.data_folder import DataFolder, open_regular
from magmobo.admin.offline import Check
from magmobo.contracts.errors import MagError
from magmobo.contracts.operations import DiagnosticsPart
from magmobo.kernel.diagnostics import masked, tail
from magmobo.kernel.masking import Masker, named_secrets
from magmobo.kernel.spellings import secret_parts

_LOG_BYTES = 2_097_152
_SMALL_BYTES = 262_144
_SETTINGS_BYTES = 1_048_576  # the settings reader takes no more
_MAX_CRASHES = 3
_MAX_LISTED = 2_000
_AUDIT_RECORDS = 20
_MAX_NAME_CHARS = 100
_README = "README.txt"


class Archive(Struct, frozen=True):
    """What was written. `parts` are file names inside of the archive with their sizes in bytes."""

    bytes: int
    parts: Mapping[str, int]


def folder_parts(folder: DataFolder, checks: Sequence[Check]) -> Sequence[DiagnosticsPart]:
    """What can be said without a node, secrets included: for `masked_parts` alone."""
    makers: dict[str, Callable[[], str]] = {
        "versions.json": lambda: json.dumps(_versions()),
        "doctor.json": lambda: json.dumps(to_builtins(checks)),
        "folder.txt": lambda: _listing(folder.path),
        "audit.jsonl": lambda: _audit(folder),
        "log.jsonl": lambda: _end_of(folder.log_file, _LOG_BYTES),
        "output.txt": lambda: _end_of(folder.output_file, _SMALL_BYTES),
    }
    for number, path in enumerate(_crashes(folder.log_dir), 1):
        makers[f"crash-{number}.txt"] = lambda path=path: _end_of(path, _SMALL_BYTES)  # type: ignore[misc]
    return [DiagnosticsPart(name, _made(make)) for name, make in makers.items()]


def masked_parts(parts: Sequence[DiagnosticsPart], masker: Masker) -> Sequence[DiagnosticsPart]:
    """The parts as they may leave the house."""
    return [DiagnosticsPart(part.name, masked(part.name, part.text, masker)) for part in parts]


def known_secrets(folder: DataFolder, settings_dir: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Secrets that this node's data folder, settings files and environment hold; files that cannot be read are left
    out, because nothing of them is in the archive either.
    """
    for variable, value in environ.items():
        yield from named_secrets(value, variable)
        if variable.endswith("_FILE"):
            yield from named_secrets(_settings_text(Path(value)).strip(), variable)
    for path in (*settings_dir.glob("mag*.toml"), *settings_dir.glob("mag.d/*.toml")):
        yield from named_secrets(_table(path))
    secret_files = [*folder.secrets_file.parent.glob("*.toml"), *folder.path.glob("postgres/*.json")]
    for path in secret_files:
        yield from _all_texts(_table(path, follow=False))


def write_archive(file: BinaryIO, name: str, about: Sequence[str], parts: Sequence[DiagnosticsPart]) -> Archive:
    """Write `parts` below the folder `name`, with a page that says what they are.

    Raises: OSError.
    """
    parts = [DiagnosticsPart(safe_name(part.name, number), part.text) for number, part in enumerate(parts, 1)]
    sizes = {part.name: len(part.text.encode(errors="replace")) for part in parts}
    listed = "\n".join(f"  {size:>9,} bytes  {part}" for part, size in sizes.items())
    readme = "\n".join([*about, "", "Files:", listed, ""])
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for part in (DiagnosticsPart(_README, readme), *parts):
            content = part.text.encode(errors="replace")
            entry = tarfile.TarInfo(f"{name}/{part.name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
    file.flush()
    return Archive(file.tell(), sizes)


def safe_name(name: str, number: int) -> str:
    """`name`, if it is one for a file inside of the archive, else one made of `number`."""
    words = name.split("/")
    is_safe = len(name) <= _MAX_NAME_CHARS and all(
        re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", word) for word in words
    )
    return name if is_safe else f"{'node/' if words[0] == 'node' else ''}part-{number}.txt"


def _versions() -> dict[str, Any]:
    from importlib import metadata

    packages = {
        name: metadata.version(name)
        for requirement in metadata.requires("magmobo") or ()
        if "extra ==" not in requirement
        for name in [requirement.partition(";")[0].split("[")[0].rstrip("<>=!~.,0123456789 ")]
        if _is_installed(name)
    }
    return {
        "magmobo": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": packages,
    }


def _is_installed(name: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _listing(path: Path) -> str:
    """Mode, size and age of what is in the folder, two levels deep, without contents."""
    now_s = time.time()
    lines = []
    inside = [place for place in path.glob("*") if place.is_dir() and not place.is_symlink()]
    everything = [path, *path.glob("*"), *(found for place in inside for found in place.glob("*"))]
    for found in sorted(everything)[:_MAX_LISTED]:
        with suppress(OSError):  # it may have gone meanwhile
            facts = found.lstat()
            age_s = max(0, round(now_s - facts.st_mtime))
            lines.append(
                f"{stat.filemode(facts.st_mode)} {facts.st_size:>12} {age_s:>9} s old  {found.relative_to(path)}"
            )
    return "\n".join(lines) + "\n"


def _audit(folder: DataFolder) -> str:
    return "".join(json.dumps(to_builtins(record)) + "\n" for record in audit.tail(folder, _AUDIT_RECORDS).records)


def _crashes(log_dir: Path) -> Sequence[Path]:
    """The newest reports of unexpected errors."""
    found: list[tuple[float, Path]] = []
    for path in log_dir.glob("mag-crash-*.txt"):
        with suppress(OSError):  # it may have gone meanwhile
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode):
                found.append((facts.st_mtime, path))
    return [path for _, path in sorted(found, reverse=True)[:_MAX_CRASHES]]


def _end_of(path: Path, limit_bytes: int) -> str:
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return "there is no such file\n"
    with os.fdopen(descriptor, "rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - limit_bytes))
        return tail(file.read(limit_bytes).decode(errors="replace"), limit_bytes - 1)


def _made(make: Callable[[], str]) -> str:
    try:
        return make()
    except MagError as error:
        return f"{error} [{error.code}]\n"
    except Exception as error:
        return f"this part could not be made: {type(error).__name__}: {error}\n"


def _table(path: Path, *, follow: bool = True) -> Any:
    with suppress(ValueError, RecursionError):
        text = _settings_text(path, follow=follow)
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    return {}


def _settings_text(path: Path, *, follow: bool = True) -> str:
    """What is in a file of settings, nothing where none can be read. Settings may be links, what is ours is not."""
    with suppress(OSError, ValueError), os.fdopen(open_regular(path, follow=follow), "rb") as file:
        return file.read(_SETTINGS_BYTES).decode()
    return ""


def _all_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from secret_parts(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _all_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _all_texts(item)
