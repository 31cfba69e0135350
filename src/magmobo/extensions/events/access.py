"""Which events an extension may see, and what of them: by topic, by its grants of this moment, by table and column.

An extension sees the topics its manifest names and its grants allow, nothing else. A filter looks at what the extension
may see, so that no condition tells what is in a hidden column. Boundary: no I/O; asked again for every event, because
grants may be taken back at any time. Source: CONTRACTS section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magmobo.contracts.errors import MagError
from magmobo.extensions.events.bodies import (
    CHANGE_TOPIC,
    GAP_OF_CHANGES,
    GAP_OF_NODE,
    GAP_TOPIC,
    PUBLISHED_TOPIC,
    RETRIED_TOPIC,
)
from magmobo.extensions.events.log import Logged
from magmobo.extensions.installed import Grant, Installed
from magmobo.extensions.languages.filters import Predicate, compile_filter
from magmobo.extensions.package.manifest import EventBinding
from magmobo.extensions.package.scopes import channel_in, parse_table, topic_words, topics_meet

_NEEDED_BY_TOPIC = {
    CHANGE_TOPIC: "database.read",
    "database.query.executed": "database.read",
    "database.slow_query.detected": "database.read",
}
_NEEDED_BY_FAMILY = {
    "auth": "auth.audit_access",
    "security": "auth.audit_access",
    "realtime": "realtime.subscribe_events",
    "api": "api.intercept_request",
}
Data = Mapping[str, Any]
Holds = Callable[[Installed, str], bool]
"""Whether an extension has a capability at this moment."""


def capability_for(topic: str) -> str:
    """What an extension needs to hear of a topic; empty: nothing but the manifest's word.

    >>> capability_for("security.breakglass"), capability_for("system.ready")
    ('auth.audit_access', '')
    """
    return _NEEDED_BY_TOPIC.get(topic) or _NEEDED_BY_FAMILY.get(topic.partition(".")[0], "")


class Viewer:
    """What one subscription of one extension sees."""

    def __init__(self, installed: Installed, binding: EventBinding, holds: Holds) -> None:
        self.installed, self.binding, self._holds = installed, binding, holds
        self._own_name = f"{installed.id}/{binding.name}"
        self._words = topic_words(binding.topic)
        self._accepts: Predicate = compile_filter(binding.where)
        self._tables = frozenset(binding.tables)
        self._means: dict[str, bool] = {}
        self._scoped_by: Mapping[str, Grant] | None = None
        self._columns: Mapping[str, frozenset[str]] = {}

    def see(self, logged: Logged, data: Data) -> Data | None:
        """What of an event belongs to this subscription; None: nothing. `data` is its whole body."""
        if logged.topic == GAP_TOPIC:
            return data if logged.about == self._own_name or self._is_concerned(logged.about, data) else None
        if not self._means_topic(logged.topic):
            return None
        seen = self._allowed(logged, data)
        if seen is None:
            return None
        event = {"id": logged.id, "topic": logged.topic, "time_s": logged.time_s, "data": seen}
        return seen if self._accepts(event) else None

    def means(self, topic: str, about: str) -> bool:
        """Whether a row of the log can concern this subscription at all."""
        if topic == GAP_TOPIC:
            return True
        if topic == RETRIED_TOPIC:
            return about == self._own_name
        return self._means_topic(topic) and (topic != CHANGE_TOPIC or about in self._tables)

    def partition(self, seen: Data) -> str:
        """The key whose events keep their order."""
        if not self.binding.partition_by:
            return ""
        value: Any = {"data": seen}
        for name in self.binding.partition_by.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value[:200] if isinstance(value, str) else "" if isinstance(value, dict | list) else repr(value)

    # ------------------------------------------------------------ inside

    def _means_topic(self, topic: str) -> bool:
        known = self._means.get(topic)
        if known is None:
            known = self._means[topic] = topics_meet(self._words, topic)
        return known

    def _is_concerned(self, about: str, data: Data) -> bool:
        if about == GAP_OF_CHANGES:
            return self._means_topic(CHANGE_TOPIC) and not self._tables.isdisjoint(data.get("tables") or ())
        return about == GAP_OF_NODE and self.binding.topic not in (CHANGE_TOPIC, PUBLISHED_TOPIC)

    def _allowed(self, logged: Logged, data: Data) -> Data | None:
        if (needed := capability_for(logged.topic)) and not self._holds(self.installed, needed):
            return None
        if logged.topic == CHANGE_TOPIC:
            return self._allowed_change(logged.about, data)
        if logged.topic == PUBLISHED_TOPIC:
            return self._allowed_published(logged.about, data)
        if needed == "realtime.subscribe_events" and not _in_channels(self.installed.scope(needed, "channels"), data):
            return None
        if needed == "auth.audit_access" and not _in_topics(self.installed.scope(needed, "topics"), logged.topic):
            return None
        return data

    def _allowed_change(self, table: str, data: Data) -> Data | None:
        if table not in self._tables:
            return None
        if self._scoped_by is not self.installed.grants:
            self._scoped_by, self._columns = self.installed.grants, self._readable()
        columns = self._columns.get(table)
        if columns is None:
            return None
        if not columns:
            return data
        seen = dict(data)
        for name in ("record", "old_record"):
            if isinstance(row := data.get(name), dict):
                seen[name] = {column: value for column, value in row.items() if column in columns}
        return seen

    def _allowed_published(self, publisher: str, data: Data) -> Data:
        """The payload is for the publisher, and for those whose manifest requires it: that is what was approved."""
        if publisher == self.installed.id or publisher in self.installed.manifest.requires.extensions:
            return data
        return {**data, "payload": None}

    def _readable(self) -> Mapping[str, frozenset[str]]:
        """Table -> columns that may be seen, empty: all."""
        found: dict[str, frozenset[str]] = {}
        for text in self.installed.scope("database.read", "tables"):
            try:
                scope = parse_table(text)
            except ValueError:
                continue
            columns = frozenset(scope.columns)
            before = found.get(scope.table)
            found[scope.table] = (
                columns if before is None else (before | columns if before and columns else frozenset())
            )
        return found


def viewer(installed: Installed, name: str, holds: Holds) -> Viewer | None:
    """What a subscription sees; None when the manifest has none of this name, or one that cannot be understood."""
    binding = next((one for one in installed.manifest.events if one.name == name), None)
    try:
        return None if binding is None else Viewer(installed, binding, holds)
    except (ValueError, MagError):
        return None


def _in_channels(channels: Sequence[str], data: Data) -> bool:
    channel = data.get("channel")
    if not isinstance(channel, str) or not channel:
        return True  # it is about no channel
    return channel_in(channels, channel)


def _in_topics(topics: Sequence[str], topic: str) -> bool:
    return any(topics_meet(topic_words(one), topic) for one in topics)
