"""`manifest.json` as authors write it: every mistake at once, where it is, and what was perhaps meant."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.extensions.package.making import asked, calm, fields, manifest, text

from magmobo.contracts.extensions import EXTENSION_CAPABILITIES, PLANNED_CAPABILITIES
from magmobo.contracts.hooks import HOOK_POINTS
from magmobo.extensions.package.errors import ManifestRefused
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.validate import MAX_MANIFEST_BYTES, manifest_schema, read_manifest

FULL: dict[str, Any] = {
    "manifest_version": 1,
    "description": "Two lines\nof it.",
    "min_tier": "S3",
    "requires": {"magmobo": ">=0.1 <2", "extensions": {"base": "^1 || 3.x"}, "conflicts": ["rival"]},
    "limits": {"memory_bytes": 134217728, "concurrency": 4},
    "capabilities": [
        asked("database.write", tables=["public.flights(id, carrier)", "app.t"]),
        asked("database.schema"),
        asked("api.intercept_request"),
        asked("api.register_endpoint"),
        asked("auth.audit_access"),
        asked("system.cron_schedule"),
        asked("system.background_jobs", rate_per_minute=5),
        asked("ui.register_panel", optional=True, fallback="no page"),
        asked("network.outbound", hosts=["api.example.com:8443"]),
    ],
    "hooks": [
        {"point": "api.before_request", "priority": 90, "timeout_ms": 20, "on_error": "deny"},
        {"point": "api.rbac_check", "on_error": "deny"},
        {"point": "api.after_request", "timeout_ms": 5000},
    ],
    "events": [
        {"name": "slow", "topic": "database.slow_query.detected", "where": {"data.duration_s": {"$gt": 1}}},
        {"name": "rows", "topic": "database.change", "tables": ["public.flights"], "partition_by": "data.table"},
        {"name": "guard", "topic": "security.*"},
    ],
    "endpoints": [{"method": "GET", "path": "/"}, {"method": "POST", "path": "/a/b", "public": True}],
    "commands": [{"name": "resend"}],
    "jobs": [{"name": "nightly", "cron": "0 3 * * *"}, {"name": "later"}],
    "settings": {
        "type": "object",
        "required": ["token"],
        "properties": {
            "token": {"type": "string", "x-secret": True, "minLength": 8},
            "limit": {"type": "integer", "minimum": 1, "default": 10},
            "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "maxItems": 3},
        },
    },
}


def problems(**changed: Any) -> list[str]:
    with pytest.raises(ManifestRefused) as caught:
        read_manifest(text(**changed))
    return [str(problem) for problem in caught.value.problems]


def test_a_full_manifest_is_read() -> None:
    found = manifest(**FULL)
    assert isinstance(found, Manifest)
    assert found.limits.concurrency == 4
    assert "event:rows" in found.handlers()


def test_the_published_schema_takes_what_is_taken() -> None:
    validator = jsonschema_rs.Draft202012Validator(manifest_schema())
    assert validator.is_valid(fields(**FULL))
    assert not validator.is_valid(fields(**FULL) | {"nmae": "x"})
    assert manifest_schema()["$schema"].endswith("2020-12/schema")


def test_every_mistake_of_shape_is_said_at_once() -> None:
    assert problems(
        name=None,
        nmae="Demo",
        version=3,
        endpoints={},
        hooks=[{"point": "api.after_request", "priority": 400}, {"pont": "x"}],
    ) == [
        "$: the field 'name' is missing",
        "$: there is no field 'nmae'; did you mean name?",
        "$.endpoints: expected `array`, got `object`",
        "$.hooks[0].priority: expected `int` <= 100",
        "$.hooks[1]: the field 'point' is missing",
        "$.hooks[1]: there is no field 'pont'; did you mean point?",
        "$.version: expected `str`, got `int`",
    ]


def test_every_mistake_of_meaning_is_said_at_once() -> None:
    assert problems(
        version="1.0",
        hooks=[{"point": "api.befor_request"}, {"point": "database.before_backup"}, {"point": "api.after_request"}],
        events=[{"name": "a", "topic": "database.chnage"}, {"name": "a", "topic": "auth.**"}],
        jobs=[{"name": "x", "cron": "61 * * * *"}],
        capabilities=[asked("database.reed"), asked("network.outbound")],
    )[:-1] == [
        "$.capabilities[0].name: there is no capability database.reed; did you mean database.read?",
        "$.capabilities[1].hosts: name the hosts that network.outbound is for",
        "$.events[0].topic: no event has the topic database.chnage; did you mean database.change?",
        "$.events[1]: 'a' is there already",
        "$.events[1].topic: auth.** needs the capability auth.audit_access",
        "$.events[1].topic: no event has the topic auth.**",
        "$.hooks[0].point: there is no hook point 'api.befor_request'; did you mean api.before_request?",
        "$.hooks[1].point: database.before_backup cannot be used yet: a backup is not built yet",
        "$.hooks[1].point: database.before_backup needs the capability database.admin",
        "$.hooks[2].point: api.after_request needs the capability api.intercept_request",
        "$.jobs[0]: the job x needs the capability system.cron_schedule",
        "$.jobs[0].cron: " + problems(jobs=[{"name": "x", "cron": "61 * * * *"}])[1].partition(": ")[2],
    ]  # fmt: skip


INTERCEPT = [asked("api.intercept_request")]


@pytest.mark.parametrize(
    ("changed", "where", "why"),
    [
        (
            {"hooks": [{"point": "api.rbac_check", "on_error": "skip"}], "capabilities": INTERCEPT},
            "$.hooks[0].on_error",
            "closed",
        ),
        (
            {"hooks": [{"point": "api.after_request", "on_error": "deny"}], "capabilities": INTERCEPT},
            "$.hooks[0].on_error",
            "told",
        ),
        (
            {"hooks": [{"point": "api.before_request", "on_error": "fallback"}], "capabilities": INTERCEPT},
            "$.hooks[0].on_error",
            "fall back",
        ),
        (
            {"hooks": [{"point": "api.before_request", "timeout_ms": 51}], "capabilities": INTERCEPT},
            "$.hooks[0].timeout_ms",
            "50 ms",
        ),
        ({"hooks": [{"point": "api.on_error"}] * 2, "capabilities": INTERCEPT}, "$.hooks[1]", "already"),
        ({"capabilities": INTERCEPT * 2}, "$.capabilities[1]", "already"),
        ({"capabilities": [asked("system.metrics", tables=["a.b"])]}, "$.capabilities[0].tables", "no tables"),
        ({"capabilities": [asked("database.read", tables=["mag.guest"])]}, "$.capabilities[0].tables[0]", "schema mag"),
        ({"capabilities": [asked("network.inbound")]}, "$.capabilities[0].name", "optional"),
        ({"capabilities": [asked("ui.register_panel", optional=True)]}, "$.capabilities[0].fallback", "without it"),
        ({"events": [{"name": "a", "topic": "database.change"}]}, "$.events[0].tables", "names the tables"),
        (
            {"events": [{"name": "a", "topic": "database.change", "tables": ["public.t"]}]},
            "$.events[0].tables[0]",
            "database.read",
        ),
        ({"events": [{"name": "a", "topic": "system.ready", "tables": ["public.t"]}]}, "$.events[0].tables", "only"),
        (
            {"events": [{"name": "a", "topic": "system.ready", "where": {"data.x": {"$near": 1}}}]},
            "$.events[0].where",
            "",
        ),
        ({"events": [{"name": "a", "topic": "System"}]}, "$.events[0].topic", "lower-case"),
        ({"endpoints": [{"method": "GET", "path": "/x"}]}, "$.endpoints", "api.register_endpoint"),
        (
            {"endpoints": [{"method": "GET", "path": "/../x"}], "capabilities": [asked("api.register_endpoint")]},
            "$.endpoints[0].path",
            "..",
        ),
        (
            {"endpoints": [{"method": "GET", "path": "/x"}] * 2, "capabilities": [asked("api.register_endpoint")]},
            "$.endpoints[1]",
            "already",
        ),
        ({"commands": [{"name": "x"}, {"name": "x"}]}, "$.commands[1]", "already"),
        ({"jobs": [{"name": "x"}]}, "$.jobs[0]", "system.background_jobs"),
        ({"requires": {"magmobo": "^y"}}, "$.requires.magmobo", "range"),
        ({"requires": {"extensions": {"base": "=="}}}, "$.requires.extensions.base", "range"),
        ({"requires": {"extensions": {"base": "*"}, "conflicts": ["base"]}}, "$.requires.conflicts", "refused"),
        ({"requires": {"extensions": {"demo": "*"}}}, "$.requires", "itself"),
        ({"settings": {"type": "string"}}, "$.settings.type", "object"),
        (
            {"settings": {"type": "object", "properties": {"n": {"type": "integer", "default": "x"}}}},
            "$.settings.properties.n.default",
            "type",
        ),
        ({"id": "Demo"}, "$.id", "regex '^[a-z][a-z0-9]*(-[a-z0-9]+)*$'"),
        ({"id": "demo\n"}, "$.id", "invisible"),
        ({"entry": "os:system()"}, "$.entry", "regex"),
        ({"name": "Demo\u202egnp.exe"}, "$.name", "invisible"),
        ({"name": "two\nlines"}, "$.name", "invisible"),
        ({"description": "\u001b[31mred"}, "$.description", "invisible"),
    ],
)
def test_one_mistake_is_named_where_it_is(changed: dict[str, Any], where: str, why: str) -> None:
    said = problems(**changed)
    assert any(one.startswith(f"{where}: ") and why in one for one in said), said


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"id": NaN}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"id": "\\ud800"}', "not JSON"),
        (b'{"id": "\xff"}', "not JSON"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"settings": ' + b'{"a":' * 60 + b"1" + b"}" * 61, "nested deeper"),
        (b'{"id": "demo", "id": "other", "name": "D", "version": "1.0.0"}', "'id' stands twice"),
        (b'{"requires": {"magmobo": "*", "magmobo": "^9"}}', "'magmobo' stands twice"),
        (b'"' + b"x" * MAX_MANIFEST_BYTES + b'"', "at most"),
        (b"[]", "expected `object`"),
        (b"null", "expected `object`"),
        (b'{"version": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_manifest_at_all(data: bytes, why: str) -> None:
    with pytest.raises(ManifestRefused, match=why):
        read_manifest(data)


@pytest.mark.parametrize("name", EXTENSION_CAPABILITIES)
def test_each_capability_can_be_asked_for_or_says_why_not(name: str) -> None:
    scopes = {"tables": ["public.t"], "hosts": ["x.com"], "channels": ["a"]}
    needs = {
        "database.read": "tables",
        "database.write": "tables",
        "network.outbound": "hosts",
        "realtime.broadcast": "channels",
    }
    more = {needs[name]: scopes[needs[name]]} if name in needs else {}
    if name in PLANNED_CAPABILITIES:
        assert PLANNED_CAPABILITIES[name] in problems(capabilities=[asked(name, **more)])[0]
        more |= {"optional": True, "fallback": "it does without"}
    assert manifest(capabilities=[asked(name, **more)]).request(name)


@pytest.mark.parametrize("point", HOOK_POINTS)
def test_each_hook_point_can_be_taken_part_in_with_its_capability_or_says_why_not(point: str) -> None:
    spec = HOOK_POINTS[point]
    said = {"hooks": [{"point": point}], "capabilities": [asked(spec.capability)]}
    if spec.planned:
        assert spec.planned in problems(**said)[0]
    else:
        assert manifest(**said).hooks[0].point == point
        assert spec.capability in problems(hooks=said["hooks"])[0]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@calm
@given(st.dictionaries(st.sampled_from(sorted(fields(**FULL))), values, max_size=4))
def test_whatever_a_manifest_says_it_is_read_or_refused_with_places(changed: dict[str, Any]) -> None:
    places = ["$"]
    try:
        read_manifest(json.dumps(fields(**FULL) | changed).encode())
    except ManifestRefused as error:
        places = [problem.path for problem in error.problems]
    assert places
    assert all(place.startswith("$") for place in places)


@calm
@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    with pytest.raises(ManifestRefused):
        read_manifest(data)
