"""Small extensions of the review's tests, for a node of `node_gate`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile.extensions.node_gate import Gate
from tests.unit.extensions.package.making import fields

from magmobo.extensions.package.build import pack, sign


def passable_folder() -> Iterator[Path]:
    """A folder that uids of extensions may pass, for as long as the test takes."""
    folder = Path(tempfile.mkdtemp(prefix="mag-review-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def packed(node: Gate, code: str, **manifest: Any) -> bytes:
    """An extension of this code, signed with the key that the node trusts."""
    author = node.folder / "authors" / str(manifest["id"])
    author.mkdir()
    (author / "manifest.json").write_text(json.dumps(fields(**manifest)))
    (author / "extension.py").write_text(code)
    return sign(pack(author), node.key)
