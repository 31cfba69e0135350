"""What is forgotten: one key, a tag of one tenant or of all, or everything. No I/O."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from msgspec import Struct

from magmobo.kernel.cache.keys import EVERYTHING, Name, self_token_key, tag_token_keys


class Invalidation(Struct, frozen=True, forbid_unknown_fields=True):
    """One order to forget. `what` is the key or the tag; `tenant` is None for a tag of all tenants."""

    kind: Literal["key", "tag", "everything"]
    owner: str = ""
    tenant: str | None = None
    what: str = ""

    def concerns(self, name: Name, tags: Collection[str] | None) -> bool:
        """Whether an entry must be forgotten; `tags` is None when they are not known, and then it may be any."""
        if self.kind == "everything":
            return True
        if self.owner != name.owner or (self.tenant is not None and self.tenant != name.tenant):
            return False
        if self.kind == "key":
            return self.what == name.key
        return tags is None or self.what in tags

    def token_key(self) -> bytes:
        """The token in Redis without which the values concerned are no longer valid."""
        if self.kind == "everything":
            return EVERYTHING.encode()
        name = Name(self.owner, self.tenant or "", self.what)
        if self.kind == "key":
            return self_token_key(name)
        of_tenant, of_all = tag_token_keys(name, self.what)
        return of_all if self.tenant is None else of_tenant


FORGET_EVERYTHING = Invalidation("everything")


def forget_key(name: Name) -> Invalidation:
    """Forget one entry."""
    return Invalidation("key", name.owner, name.tenant, name.key)


def forget_tag(owner: str, tag: str, tenant: str | None) -> Invalidation:
    """Forget what was put under `tag`."""
    return Invalidation("tag", owner, tenant, tag)
