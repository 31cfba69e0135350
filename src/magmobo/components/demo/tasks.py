"""The tasks demo: four small tables of our own under row level security, and a token to look at them with.

Invariant: the rows are the same on every machine; a member sees the member's own team and nothing else, nobody
without a token sees anything.
"""

from __future__ import annotations

import os
from pathlib import Path

import jwt

from magmobo.components.demo.load import Connection, DemoSchema, run_script
from magmobo.components.demo.progress import Progress
from magmobo.contracts.secret import Secret

MEMBER_ROLE = "mag_demo_member"
MEMBER_ID = 1
TOKEN_LIFETIME_S = 30 * 86_400

SCHEMA = DemoSchema("tasks", 1, ("teams", "members", "tasks", "comments"), (MEMBER_ROLE,))


async def fill(connection: Connection, progress: Progress) -> None:
    """Create the tables, their rows and their policies."""
    await run_script(connection, "tasks")
    progress.advance("tasks", 1)


def member_token(secret: Secret, *, now_s: float, member_id: int = MEMBER_ID) -> str:
    """A JWT (HS256) for one member, valid for 30 days from `now_s` (seconds since 1970 UTC)."""
    claims = {"role": MEMBER_ROLE, "sub": str(member_id), "iat": int(now_s), "exp": int(now_s) + TOKEN_LIFETIME_S}
    return jwt.encode(claims, secret.reveal(), algorithm="HS256")


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner reads."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    draft.replace(path)
