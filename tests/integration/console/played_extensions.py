"""Extensions of a node that is played: one that serves, one that waits for approval of something critical."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from magmobo.contracts.errors import MagError
from magmobo.contracts.extensions import (
    BindingInfo,
    ExtensionDetail,
    ExtensionInfo,
    ExtensionPage,
    GrantInfo,
)

SINCE = "2026-01-02T03:04:05Z"
MARKUP = "<img src=x onerror=document.title='owned'>"


class Unconfirmed(MagError):
    code = "MAG-TEST-001"
    http_status = 422
    remedy = "Type it."


def grant(capability: str, risk: str, state: str, scope: Mapping[str, Sequence[str]], reason: str) -> GrantInfo:
    return GrantInfo(capability, risk, state, reason, False, scope, 100)


def extension(extension_id: str, name: str, state: str, grants: Sequence[GrantInfo]) -> ExtensionDetail:
    info = ExtensionInfo(extension_id, name, "1.0.0", state, "healthy", "high", "acme", "S3", SINCE, 0)
    return ExtensionDetail(
        info, f"about {name}", "Ann", "0" * 64, grants, ["public.flights"], ["its own tables"],
        [BindingInfo("event", "late", "database.change")], {}, ["1.0.0"], 0, 0, {"calls": 12.0},
    )  # fmt: skip


class PlayedExtensions:
    """`asked`: what was ordered, with whether it was only asked for."""

    def __init__(self) -> None:
        self.stopped = False
        self.asked: list[tuple[str, dict[str, Any], bool]] = []
        self.details = {
            "delay-alerts": extension(
                "delay-alerts", "Delay alerts", "enabled",
                [grant("database.read", "medium", "granted", {"tables": ["public.flights"]}, "It sees late flights.")],
            ),
            "guard": extension(
                "guard", MARKUP, "installed", [grant("database.admin", "critical", "pending", {}, "It stops DROP.")]
            ),
        }  # fmt: skip

    def answer(self, command: str, params: dict[str, Any], *, dry_run: bool) -> object:
        if command == "extension:list":
            return ExtensionPage([detail.info for detail in self.details.values()], "S3", self.stopped)
        if command == "extension:show":
            return self.details[params["id"]]
        self.asked.append((command, params, dry_run))
        return getattr(self, command.partition(":")[2])(params, dry_run)

    def approve(self, params: dict[str, Any], dry_run: bool) -> ExtensionDetail:
        if params["confirm"] != params["id"]:
            raise Unconfirmed("database.admin takes the extension's id, typed")
        before = self.details[params["id"]]
        approved = self._become(params["id"], "enabled", "granted")
        if dry_run:  # what it would come to, as the node says it
            self.details[params["id"]] = before
        return approved

    def revoke(self, params: dict[str, Any], _dry_run: bool) -> ExtensionDetail:
        return self._become(params["id"], "enabled", "revoked")

    def grant(self, params: dict[str, Any], _dry_run: bool) -> ExtensionDetail:
        return self._become(params["id"], "enabled", "granted")

    def disable(self, params: dict[str, Any], _dry_run: bool) -> ExtensionDetail:
        return self._become(params["id"], "disabled", "granted")

    def kill(self, params: dict[str, Any], _dry_run: bool) -> ExtensionPage:
        self.stopped = not params.get("release", False) if not params.get("id") else self.stopped
        return ExtensionPage([], "S3", self.stopped)

    def _become(self, extension_id: str, state: str, grant_state: str) -> ExtensionDetail:
        before = self.details[extension_id]
        grants = [structs.replace(one, state=grant_state) for one in before.grants]
        info = structs.replace(before.info, state=state)
        self.details[extension_id] = structs.replace(before, info=info, grants=grants)
        return self.details[extension_id]
