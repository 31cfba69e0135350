"""Extensions, packages and keys to test with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from magmobo.extensions.package.build import pack, sign
from magmobo.extensions.package.format import Package, read_package
from magmobo.extensions.package.keys import KeyPair, generate
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.validate import read_manifest

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine fails no property."""
PAIR: KeyPair = generate()
KEYS: Mapping[str, bytes] = {PAIR.key_id: PAIR.public}
CODE = "from magx import Extension\n\next = Extension()\n"


def fields(**changed: Any) -> dict[str, Any]:
    """What a small manifest says; None leaves a field out."""
    said = {"id": "demo", "name": "Demo", "version": "1.0.0"} | changed
    return {name: value for name, value in said.items() if value is not None}


def text(**changed: Any) -> bytes:
    return json.dumps(fields(**changed)).encode()


def manifest(**changed: Any) -> Manifest:
    return read_manifest(text(**changed))


def asked(name: str, **more: Any) -> dict[str, Any]:
    """One capability as a manifest asks for it."""
    return {"name": name, "reason": "because"} | more


def folder(place: Path, files: Mapping[str, str | bytes] | None = None, **changed: Any) -> Path:
    """An extension's folder with these files besides its code."""
    contents: dict[str, str | bytes] = {"manifest.json": text(**changed), "extension.py": CODE, **(files or {})}
    for path, content in contents.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return place


def signed(place: Path, files: Mapping[str, str | bytes] | None = None, **changed: Any) -> bytes:
    return sign(pack(folder(place, files, **changed)), PAIR)


def package(place: Path, files: Mapping[str, str | bytes] | None = None, **changed: Any) -> Package:
    return read_package(signed(place, files, **changed), KEYS)
