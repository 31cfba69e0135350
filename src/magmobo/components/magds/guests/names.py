"""What a guest's role and schema are called. No I/O."""

from __future__ import annotations

import re

from magmobo.contracts.guests import SCHEMA_PREFIX

ROLE_PREFIX = "mag_ext_"
_GUEST = re.compile(r"[a-z][a-z0-9_]{0,40}")


class Names:
    """Names in one database: its oid is part of a role's name, because roles belong to the whole server."""

    def __init__(self, database_oid: int) -> None:
        self._prefix = f"{ROLE_PREFIX}{database_oid}_"

    def role(self, guest: str) -> str:
        """Raises: ValueError for what is no name of a guest."""
        return self._prefix + _checked(guest)

    def schema(self, guest: str) -> str:
        """Raises: ValueError for what is no name of a guest."""
        return SCHEMA_PREFIX + _checked(guest)


def _checked(guest: str) -> str:
    if _GUEST.fullmatch(guest) is None:
        raise ValueError(f"{guest[:60]!r} is no name of a guest")
    return guest
