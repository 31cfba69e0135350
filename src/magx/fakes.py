"""What the fake kernel says when an extension asks it something: the node's functions without a node.

It refuses what the manifest does not ask for, as the node does, so that a missing capability fails in a test. Storage
and servers outside are not imitated: the test says what they answer. Boundary: plain data, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from magx import wire
from magx.model import ApiError, HttpResponse

NOT_GRANTED, UNKNOWN = "MAG-EXT-141", "MAG-EXT-145"
CAPABILITY_OF: Mapping[str, str] = {
    "config.get": "",
    "config.set": "",
    "db.execute": "database.read",
    "db.fetch": "database.read",
    "db.fetchval": "database.read",
    "events.publish": "api.emit_events",
    "events.replay": "",
    "events.subscribe": "",
    "http.request": "network.outbound",
    "jobs.enqueue": "system.background_jobs",
    "kv.delete": "",
    "kv.get": "",
    "kv.list": "",
    "kv.put": "",
    "realtime.broadcast": "realtime.broadcast",
}
"""Method -> what it takes; empty: every extension may."""
IMPLIED: Mapping[str, tuple[str, ...]] = {
    "auth.modify_roles": ("auth.audit_access",),
    "database.admin": ("database.schema", "database.write", "database.read"),
    "database.schema": ("database.read",),
    "database.write": ("database.read",),
}
"""Capability -> those that are had with it."""

CHANGE_TOPIC = "database.change"
_NEEDED_BY_TOPIC = {
    CHANGE_TOPIC: "database.read",
    "database.query.executed": "database.read",
    "database.slow_query.detected": "database.read",
}
_NEEDED_BY_FAMILY = {
    "api": "api.intercept_request",
    "auth": "auth.audit_access",
    "realtime": "realtime.subscribe_events",
    "security": "auth.audit_access",
}

Answer = Any | Callable[[Mapping[str, Any]], Any]


class ApiCall(NamedTuple):
    """One question that the extension asked."""

    method: str
    args: Mapping[str, Any]


class FakeNode:
    """The node's functions. `calls` has every question, granted or not; `kv` is what `ext.kv` keeps; `jobs` what waits
    to be run; `settings` what counts now.
    """

    def __init__(self, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self._requests = {one["name"]: one for one in manifest.get("capabilities", ())}
        self._manifest = manifest
        self.granted = set(self._requests)
        self.calls: list[ApiCall] = []
        self.kv: dict[str, Any] = {}
        self.jobs: list[tuple[str, Mapping[str, Any]]] = []
        self._defaults = _defaults(manifest.get("settings", {}))
        self.settings = {**self._defaults, **settings}
        self.answers: dict[str, Answer] = {
            "config.get": lambda args: self.settings,
            "config.set": self._set,
            "db.execute": 1,
            "db.fetch": [],
            "db.fetchval": None,
            "events.publish": lambda args: {"id": f"published-{len(self.calls)}"},
            "events.replay": None,
            "events.subscribe": None,
            "http.request": ApiError(
                UNKNOWN, "no answer is set: kernel.answer('http.request', HttpResponse(status=200))"
            ),
            "jobs.enqueue": lambda args: self.jobs.append((args["job"], args["arguments"])),
            "kv.delete": lambda args: self.kv.pop(args["key"], None) and None,
            "kv.get": lambda args: {"value": self.kv.get(args["key"])},
            "kv.list": self._list,
            "kv.put": lambda args: self.kv.update({args["key"]: args["value"]}),
            "realtime.broadcast": None,
        }
        self._checks: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
            "events.replay": self._check_subscription,
            "events.subscribe": self._check_subscription,
            "http.request": self._check_host,
            "jobs.enqueue": self._check_job,
            "realtime.broadcast": self._check_channels,
        }

    def capabilities(self) -> list[str]:
        """What is granted, with what that implies."""
        return sorted(self.granted.union(*(IMPLIED.get(one, ()) for one in self.granted)))

    def sees(self, topic: str, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What the extension may see of an event: all, a row without columns that it may not read, or None."""
        needed = capability_for(topic)
        if needed and needed not in self.capabilities():
            return None
        if topic != CHANGE_TOPIC:
            return data
        columns = self._columns(f"{data.get('schema')}.{data.get('table')}")
        if columns is None:
            return None
        rows = {name: data[name] for name in ("record", "old_record") if columns and isinstance(data.get(name), dict)}
        return {**data, **{name: {key: row[key] for key in row if key in columns} for name, row in rows.items()}}

    def _columns(self, table: str) -> frozenset[str] | None:
        """Columns that may be read, empty: all; None: not this table."""
        found: frozenset[str] | None = None
        for name in ("database.read", "database.write", "database.admin"):
            for text in self._requests.get(name, {}).get("tables", ()) if name in self.granted else ():
                named, _, listed = text.partition("(")
                if named == table:
                    columns = frozenset(one.strip() for one in listed.rstrip(")").split(",") if one.strip())
                    found = columns if found is None else found | columns if found and columns else frozenset()
        return found

    def answer(self, api: wire.Api) -> Any:
        """What the node would answer. Raises: ApiError."""
        args = wire.value(api.args)
        self.calls.append(ApiCall(api.method, args))
        if api.method not in CAPABILITY_OF:
            raise ApiError(UNKNOWN, f"there is no method {api.method}")
        needed = CAPABILITY_OF[api.method]
        if needed and needed not in self.capabilities():
            raise ApiError(NOT_GRANTED, f"{api.method} takes {needed}, which is not granted")
        if api.method in self._checks:
            self._checks[api.method](args)
        said = self.answers[api.method]
        if isinstance(said, Exception):
            raise said
        return _plain(said(args) if callable(said) else said)

    def _set(self, args: Mapping[str, Any]) -> dict[str, Any]:
        for name, value in args["values"].items():
            if value is not None:
                self.settings[name] = value
            elif name in self._defaults:
                self.settings[name] = self._defaults[name]
            else:
                self.settings.pop(name, None)
        return self.settings

    def _list(self, args: Mapping[str, Any]) -> dict[str, list[str]]:
        keys = sorted(key for key in self.kv if key.startswith(args["prefix"]) and key > args["after"])
        return {"keys": keys[: args["limit"]]}

    def _check_host(self, args: Mapping[str, Any]) -> None:
        parts = urlsplit(args["url"])
        default = {"https": 443, "http": 80}.get(parts.scheme)
        for allowed in self._requests["network.outbound"].get("hosts", ()):
            name, _, port = allowed.partition(":")
            host = parts.hostname or ""
            is_named = host.endswith(name[1:]) if name.startswith("*.") else host == name
            if is_named and (parts.port or default) == (int(port) if port else default):
                return
        raise ApiError(NOT_GRANTED, f"{parts.netloc} is not among the hosts of the manifest")

    def _check_channels(self, args: Mapping[str, Any]) -> None:
        allowed = self._requests["realtime.broadcast"].get("channels", ())
        for channel in args["channels"]:
            if not any(channel.startswith(one[:-1]) if one.endswith("*") else channel == one for one in allowed):
                raise ApiError(NOT_GRANTED, f"{channel} is not among the channels of the manifest")

    def _check_job(self, args: Mapping[str, Any]) -> None:
        self._check_name("jobs", args["job"])

    def _check_subscription(self, args: Mapping[str, Any]) -> None:
        self._check_name("events", args["subscription"])

    def _check_name(self, kind: str, name: str) -> None:
        if name not in {one["name"] for one in self._manifest.get(kind, ())}:
            raise ApiError(UNKNOWN, f"the manifest has no {name} among its {kind}")


def capability_for(topic: str) -> str:
    """What hearing of a topic takes; empty: nothing but the manifest."""
    return _NEEDED_BY_TOPIC.get(topic) or _NEEDED_BY_FAMILY.get(topic.partition(".")[0], "")


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    filled = {}
    for name, one in schema.get("properties", {}).items():
        if "default" in one:
            filled[name] = one["default"]
        elif one.get("type") == "object" and (below := _defaults(one)):
            filled[name] = below
    return filled


def _plain(value: Any) -> Any:
    if isinstance(value, HttpResponse):
        return {"status": value.status, "headers": value.headers, "body": value.body}
    return value
