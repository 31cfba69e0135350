"""The console's files, read once from the installed package. What is not in the table does not exist: no path of a
request ever reaches the file system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """One file as it is served."""

    body: bytes
    content_type: str
    etag: str


def load_assets() -> Mapping[str, Asset]:
    """Path below `static/` -> file, for every file type the page uses."""
    return dict(_assets_in(resources.files(__package__).joinpath("static"), ""))


def _assets_in(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _assets_in(entry, f"{prefix}{entry.name}/")
        elif content_type := CONTENT_TYPES.get(entry.name[entry.name.rfind(".") :]):
            body = entry.read_bytes()
            found.append((prefix + entry.name, Asset(body, content_type, f'"{sha256(body).hexdigest()[:32]}"')))
    return found
