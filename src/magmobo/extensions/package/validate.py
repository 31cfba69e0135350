"""`manifest.json` as a whole: its shape, and whether what it says can be had here.

Every mistake is found in one reading, each with its place. Boundary: text in, a `Manifest` out; nothing is fetched, no
pattern of an author runs outside RE2, and what is looked at is bounded by the size of the text.
Source: CONTRACTS sections 5 and 6; docs/extension-package.md lists every check.
"""

from __future__ import annotations

from typing import Any

import msgspec

from magmobo.extensions.package.checks import semantic_problems
from magmobo.extensions.package.errors import ManifestRefused, Problem
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.shapes import MAX_PROBLEMS, convert_whole, parse_json

MAX_MANIFEST_BYTES = 262_144
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def read_manifest(data: bytes) -> Manifest:
    """The manifest that these bytes are. Raises: ManifestRefused with every mistake, in order of their places."""
    value, problems = parse_json(data, MAX_MANIFEST_BYTES)
    manifest: Manifest | None = None
    if not problems:
        manifest, problems = convert_whole(value, Manifest)
    if manifest is not None:
        problems = list(semantic_problems(manifest))
    if problems or manifest is None:
        raise ManifestRefused(_in_order(problems))
    return manifest


def manifest_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a manifest, for editors; what it cannot say, `extension:validate` checks."""
    (schema,), definitions = msgspec.json.schema_components((Manifest,), ref_template="#/$defs/{name}")
    return {
        "$schema": _DIALECT,
        "title": "manifest.json of a MagMoBo extension",
        **schema,
        "$defs": definitions,
    }


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(set(problems))[:MAX_PROBLEMS]
