"""The key of the hashes that stand for names of people in what this node writes.

It stays with the data folder, so that one person is the same hash in all logs of a node and nobody who sees them can
try names. Made when the first name is written.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from magmobo.admin.data_folder import write_atomically


def names_key(secrets_dir: Path) -> bytes:
    """The key in `secrets_dir/names.key`, made when there is none that can be read. Where it cannot be written it is
    one of this process: a name that cannot be told again is better than one that is told.
    """
    path = secrets_dir / "names.key"
    with suppress(OSError, UnicodeDecodeError):
        kept = path.read_text(encoding="ascii")
        if re.fullmatch(r"[0-9a-f]{64}\n", kept):
            return bytes.fromhex(kept)
    key = os.urandom(32)
    with suppress(OSError):
        write_atomically(path, f"{key.hex()}\n")
    return key
