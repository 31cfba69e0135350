"""What extensions may be allowed to do: the catalogue of capabilities, with their risk and what comes with them.

Source: CONTRACTS section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct


class Risk(StrEnum):
    """`LOW` is granted on install, `MEDIUM` asks, `HIGH` asks with a warning, `CRITICAL` asks an admin to type the
    name.
    """

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class ExtensionCapability(Struct, frozen=True):
    """One thing that an extension may be allowed. `implies` are had with it; `rate_per_minute` is the default limit on
    calls by the extension; `privileged` ones are audited one by one before they act, the others in batches.
    """

    name: str
    risk: Risk
    summary: str
    implies: tuple[str, ...] = ()
    rate_per_minute: int = 1000
    privileged: bool = False


_CATALOGUE = (
    ExtensionCapability("database.read", Risk.MEDIUM, "Read the tables it names.", (), 100),
    ExtensionCapability("database.write", Risk.HIGH, "Read and change the tables it names.", ("database.read",), 100),
    ExtensionCapability("database.schema", Risk.HIGH, "Keep tables of its own.", ("database.read",), 100),
    ExtensionCapability(
        "database.admin", Risk.CRITICAL, "Stand between storage and its operations.",
        ("database.schema", "database.write", "database.read"), 100, True,
    ),
    ExtensionCapability("api.register_endpoint", Risk.MEDIUM, "Answer requests below /ext/<id>/."),
    ExtensionCapability("api.intercept_request", Risk.HIGH, "See and change requests, refuse them."),
    ExtensionCapability("api.emit_events", Risk.LOW, "Publish events named after itself."),
    ExtensionCapability("realtime.register_channel", Risk.LOW, "Hear of channels that come into use."),
    ExtensionCapability("realtime.subscribe_events", Risk.MEDIUM, "Hear who subscribes and what is sent."),
    ExtensionCapability("realtime.broadcast", Risk.MEDIUM, "Send to the channels it names.", (), 100),
    ExtensionCapability("auth.audit_access", Risk.MEDIUM, "Hear of security events."),
    ExtensionCapability("auth.modify_roles", Risk.CRITICAL, "Change roles.", ("auth.audit_access",), 100, True),
    ExtensionCapability("auth.register_provider", Risk.CRITICAL, "Say who somebody is.", (), 100, True),
    ExtensionCapability("ui.register_widget", Risk.LOW, "Show a figure in the console."),
    ExtensionCapability("ui.register_panel", Risk.LOW, "Show a page in the console."),
    ExtensionCapability("network.outbound", Risk.HIGH, "Send requests to the hosts it names.", (), 100),
    ExtensionCapability("network.inbound", Risk.HIGH, "Take connections from outside.", (), 100),
    ExtensionCapability("filesystem.read", Risk.LOW, "Read files of its own folder."),
    ExtensionCapability("filesystem.write", Risk.MEDIUM, "Keep files in its own folder."),
    ExtensionCapability("filesystem.temp_only", Risk.LOW, "Keep files until it stops."),
    ExtensionCapability("system.background_jobs", Risk.MEDIUM, "Do work later."),
    ExtensionCapability("system.cron_schedule", Risk.MEDIUM, "Do work at times of its choice."),
    ExtensionCapability("system.metrics", Risk.LOW, "Publish figures."),
)  # fmt: skip
EXTENSION_CAPABILITIES: Mapping[str, ExtensionCapability] = {one.name: one for one in _CATALOGUE}
PLANNED_CAPABILITIES: Mapping[str, str] = {
    "auth.modify_roles": "changing roles for extensions is not built yet",
    "auth.register_provider": "providers of identity are not built yet",
    "network.inbound": "no extension listens; an endpoint (api.register_endpoint) takes requests",
    "ui.register_widget": "the console has no place for them yet",
    "ui.register_panel": "the console has no place for them yet",
}
"""Capabilities whose host operation does not exist: an extension that must have one is refused with this reason."""
