"""Migrations of a package: `migrations/<version>_<name>.up.sql`, and `.down.sql` where there is a way back.

Boundary: names and text; the statements are Postgres's to judge. Invariant: all versions of a package have one length,
so that their order as text is the order that anybody reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from magmobo.contracts.guests import Migration

MAX_MIGRATIONS = 500
MAX_SQL_BYTES = 262_144
FOLDER = "migrations/"
_NAME = re.compile(r"migrations/([0-9]{4,14}|[0-9]{8}T[0-9]{4,6})_([a-z0-9_]{1,60})\.(up|down)\.sql")


def read_migrations(files: Mapping[str, bytes]) -> tuple[Sequence[Migration], Sequence[str]]:
    """The migrations among the files of a package, in order, and what is wrong with them, in words."""
    problems: list[str] = []
    texts: dict[tuple[str, str], dict[str, str]] = {}
    for path, content in files.items():
        if not path.startswith(FOLDER):
            continue
        found = _NAME.fullmatch(path)
        if found is None:
            problems.append(f"{path} is not named like migrations/0001_make_tables.up.sql")
            continue
        version, name, direction = found.groups()
        text = _text(content)
        if text is None:
            problems.append(f"{path} is not text in UTF-8 of at most {MAX_SQL_BYTES} bytes")
        elif direction == "up" and not text.strip():
            problems.append(f"{path} is empty")
        texts.setdefault((version, name), {})[direction] = text or ""
    problems += _together(sorted(texts), texts)
    migrations = [
        Migration(version, name, both["up"], both.get("down", ""))
        for (version, name), both in sorted(texts.items())
        if "up" in both
    ]
    return migrations, problems


def _together(names: list[tuple[str, str]], texts: Mapping[tuple[str, str], Mapping[str, str]]) -> list[str]:
    problems = [f"migrations/{version}_{name} has no .up.sql" for version, name in names
                if "up" not in texts[version, name]]  # fmt: skip
    versions = [version for version, _ in names]
    problems += [
        f"two migrations have the version {one}" for one in {one for one in versions if versions.count(one) > 1}
    ]
    if len({(len(version), "T" in version) for version in versions}) > 1:
        problems.append("the versions of migrations are not all of one form, so their order is not plain")
    if len(names) > MAX_MIGRATIONS:
        problems.append(f"there are {len(names)} migrations, at most {MAX_MIGRATIONS} are allowed")
    return problems


def _text(content: bytes) -> str | None:
    if len(content) > MAX_SQL_BYTES or b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
