"""Who sees what of an event: topics, tables and columns, channels, by the grants of that moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.events.access import Viewer, capability_for, viewer
from magmobo.extensions.events.log import Logged
from magmobo.extensions.installed import Grant, Installed
from magmobo.extensions.package.manifest import CapabilityRequest, EventBinding, Manifest, Requirements

Scope = Mapping[str, Sequence[str]]


def extension(
    binding: EventBinding, grants: Mapping[str, Scope], requires: Mapping[str, str] = {}, extension_id: str = "ext"
) -> Installed:
    asked = [CapabilityRequest(name=name, reason="tests", **scope) for name, scope in grants.items()]
    manifest = Manifest(
        id=extension_id, name="Ext", version="1.0.0", events=[binding], capabilities=asked,
        requires=Requirements(extensions=requires),
    )  # fmt: skip
    granted = {name: Grant(capability=name, scope=scope, rate_per_minute=100) for name, scope in grants.items()}
    return Installed(extension_id, "1.0.0", "0" * 64, manifest, Path("/nowhere"), "tests", grants=granted)


def holds(installed: Installed, capability: str) -> bool:
    return capability in installed.grants


def seen(
    topic: str, data: Mapping[str, Any], *, about: str = "", pattern: str = "", grants: Mapping[str, Scope] = {},
    tables: Sequence[str] = (), requires: Mapping[str, str] = {}, where: Mapping[str, Any] = {},
) -> Mapping[str, Any] | None:  # fmt: skip
    binding = EventBinding(name="sub", topic=pattern or topic, tables=tables, where=where)
    return Viewer(extension(binding, grants, requires), binding, holds).see(
        Logged(1, "id", topic, about, 0, 1.0, msgspec.msgpack.encode(data)), data
    )


@pytest.mark.parametrize(
    ("topic", "capability"),
    [
        ("system.ready", ""),
        ("extension.enabled", ""),
        ("database.schema_changed", ""),
        ("database.change", "database.read"),
        ("database.slow_query.detected", "database.read"),
        ("database.query.executed", "database.read"),
        ("realtime.message.sent", "realtime.subscribe_events"),
        ("api.response.sent", "api.intercept_request"),
        ("security.capability_denied", "auth.audit_access"),
        ("auth.anything", "auth.audit_access"),
    ],
)
def test_a_topic_takes_its_capability(topic: str, capability: str) -> None:
    assert capability_for(topic) == capability
    about, tables = ("public.t", ["public.t"]) if topic == "database.change" else ("", [])
    for pattern in (topic, f"{topic.partition('.')[0]}.**"):
        if pattern != topic and topic == "database.change":
            continue
        assert (seen(topic, {}, about=about, tables=tables, pattern=pattern) is None) is bool(capability)
        if capability:
            scope = {"tables": ["public.t"]} if capability == "database.read" else {}
            found = seen(topic, {}, about=about, tables=tables, pattern=pattern, grants={capability: scope})
            assert found == {}


def test_only_topics_that_the_subscription_means() -> None:
    assert seen("system.ready", {}, pattern="component.*") is None
    assert seen("system.ready", {}, pattern="**") == {}
    assert seen("component.failed", {}, pattern="component.*") == {}


def test_rows_need_the_table_in_the_subscription_and_in_the_grant() -> None:
    row = {"record": {"a": 1, "b": 2}, "old_record": {"a": 0, "b": 0}}
    read = {"database.read": {"tables": ["public.t(a)", "public.whole"]}}
    assert seen("database.change", row, about="public.t", tables=["public.t"], grants=read) == {
        "record": {"a": 1}, "old_record": {"a": 0},
    }  # fmt: skip
    assert seen("database.change", row, about="public.whole", tables=["public.whole"], grants=read) == row
    assert seen("database.change", row, about="public.whole", tables=["public.t"], grants=read) is None
    assert seen("database.change", row, about="public.u", tables=["public.u"], grants=read) is None
    assert seen("database.change", row, about="public.t", pattern="**", grants=read) is None
    both = {"database.read": {"tables": ["public.t(a)", "public.t(b)"]}}
    assert seen("database.change", row, about="public.t", tables=["public.t"], grants=both) == row
    assert (
        seen("database.change", row, about="public.t", tables=["public.t"], grants={"database.read": {"tables": []}})
        is None
    )


def test_a_condition_sees_what_the_extension_sees() -> None:
    row = {"record": {"a": 1, "secret": 2}}
    grants = {"database.read": {"tables": ["public.t(a)"]}}
    where = {"data.record.secret": 2}
    assert seen("database.change", row, about="public.t", tables=["public.t"], grants=grants, where=where) is None
    where = {"data.record.secret": {"$ne": 3}}
    found = seen("database.change", row, about="public.t", tables=["public.t"], grants=grants, where=where)
    assert found == {"record": {"a": 1}}, "as if the column were not there"


def test_channels_and_topics_of_a_grant_narrow_it() -> None:
    grants = {"realtime.subscribe_events": {"channels": ["news", "room-*"]}}
    for channel, found in (("news", True), ("room-5", True), ("other", False), ("newsy", False)):
        data = {"channel": channel}
        assert (seen("realtime.message.sent", data, grants=grants) == data) is found
    assert seen("realtime.connection.opened", {"connection_id": "1"}, grants=grants) is not None
    grants = {"auth.audit_access": {"topics": ["security.breakglass"]}}
    assert seen("security.breakglass", {}, pattern="security.*", grants=grants) == {}
    assert seen("security.capability_denied", {}, pattern="security.*", grants=grants) is None


def test_a_payload_is_for_its_publisher_and_those_who_require_it() -> None:
    data = {"extension_id": "other", "name": "n", "payload": "secret"}
    hidden = {**data, "payload": None}
    assert seen("extension.published", data, about="other") == hidden
    assert seen("extension.published", data, about="other", where={"data.payload": "secret"}) is None
    assert seen("extension.published", data, about="other", requires={"other": "*"}) == data
    assert seen("extension.published", data, about="ext") == data


def test_gaps_go_to_those_whom_they_concern() -> None:
    node, changes = {"reason": "node_ended"}, {"reason": "too_old", "tables": ["public.t"]}
    assert seen("extension.gap", node, about="node", pattern="system.*") == node
    assert seen("extension.gap", node, about="node", pattern="extension.published") is None
    assert seen("extension.gap", node, about="node", pattern="database.change", tables=["public.t"]) is None
    assert seen("extension.gap", changes, about="changes", pattern="database.change", tables=["public.t"]) == changes
    assert seen("extension.gap", changes, about="changes", pattern="database.change", tables=["public.u"]) is None
    assert seen("extension.gap", changes, about="changes", pattern="system.*") is None
    assert seen("extension.gap", node, about="other/sub", pattern="system.*") is None
    assert seen("extension.gap", node, about="ext/sub", pattern="extension.published") == node


def test_the_grants_of_this_moment_count() -> None:
    binding = EventBinding(name="sub", topic="database.change", tables=["public.t"])
    installed = extension(binding, {"database.read": {"tables": ["public.t"]}})
    view = Viewer(installed, binding, holds)
    row = Logged(1, "id", "database.change", "public.t", 0, 1.0, b"")
    data = {"record": {"a": 1, "b": 2}}
    assert view.see(row, data) == data
    installed.grants = extension(binding, {"database.read": {"tables": ["public.t(b)"]}}).grants
    assert view.see(row, data) == {"record": {"b": 2}}
    installed.grants = {}
    assert view.see(row, data) is None


def test_a_subscription_that_cannot_be_understood_sees_nothing() -> None:
    for bad in (EventBinding(name="sub", topic="UPPER"), EventBinding(name="sub", topic="a.b", where={"$x": 1})):
        assert viewer(extension(bad, {}), "sub", holds) is None
    assert viewer(extension(EventBinding(name="sub", topic="a.b"), {}), "other", holds) is None


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=300), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)


@given(st.dictionaries(st.sampled_from(["table", "record"]), values | st.dictionaries(st.sampled_from(["x"]), values)))
def test_a_key_is_a_short_text_whatever_the_data(data: dict[str, Any]) -> None:
    for path in ("", "data.table", "data.record.x", "nothing", "data"):
        binding = EventBinding(name="sub", topic="a.b", partition_by=path)
        key = Viewer(extension(binding, {}), binding, holds).partition(data)
        assert isinstance(key, str)
        assert len(key) <= 200
