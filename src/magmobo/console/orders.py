"""What can be ordered about extensions from the page: its shape, and the command that it becomes.

Boundary: no decision is made here; the command bus asks the gate, and the plane whether a critical capability was
confirmed by typing the extension's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Verb = Literal["approve", "grant", "revoke", "enable", "disable", "rollback", "kill", "kill-all", "release"]


class Order(Struct, forbid_unknown_fields=True):
    """Body of POST api/extensions. `wanted` is the capability of a grant or revocation; `confirm` is the id, typed;
    `sha256` the package that was looked at, for an approval; `dry_run`: only say what that would come to.
    """

    verb: Verb
    id: Annotated[str, Meta(max_length=40)] = ""
    wanted: Annotated[str, Meta(max_length=60)] = ""
    confirm: Annotated[str, Meta(max_length=40)] = ""
    sha256: Annotated[str, Meta(max_length=64)] = ""
    dry_run: bool = False

    def command(self) -> tuple[str, Mapping[str, Any]]:
        """Name and fields of the command."""
        if self.verb == "approve":
            return "extension:approve", {"id": self.id, "confirm": self.confirm, "sha256": self.sha256}
        if self.verb == "grant":
            return "extension:grant", {"id": self.id, "wanted": self.wanted, "confirm": self.confirm}
        if self.verb == "revoke":
            return "extension:revoke", {"id": self.id, "wanted": self.wanted}
        if self.verb == "kill-all":
            return "extension:kill", {}
        if self.verb == "release":
            return "extension:kill", {"release": True}
        return f"extension:{self.verb}", {"id": self.id}

    @property
    def is_sound(self) -> bool:
        """Whether it names what it must: `kill` without an id would end all of them."""
        return bool(self.id) != (self.verb in ("kill-all", "release"))
