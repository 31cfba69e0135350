"""From what a manifest asks for to what counts: nothing counts that was not decided, and no scope is left open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.extensions.package.making import asked, calm, manifest

from magmobo.contracts.extensions import EXTENSION_CAPABILITIES, PLANNED_CAPABILITIES, GrantCapability, Risk
from magmobo.extensions.installed import Grant
from magmobo.extensions.lifecycle import grants
from magmobo.extensions.lifecycle.errors import GrantRefused
from magmobo.extensions.lifecycle.records import GRANTED, PENDING, REFUSED, REVOKED, Decision
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.package.scopes import KINDS, covers

NOW_S = 1_000.0
TABLES = ("public.orders", "public.orders(id)", "public.prices", "sales.lines(id, note)")
HOSTS = ("example.com", "*.example.com", "api.example.com:8443")


def granted_all(read: Manifest) -> dict[str, Decision]:
    return {request.name: grants.granted(request, "admin") for request in read.capabilities}


def scoped(*tables: str, name: str = "database.read", **more: Any) -> dict[str, Any]:
    return asked(name, tables=list(tables), **more)


def narrowed(read: Manifest, name: str = "database.read", **less: Any) -> Decision:
    request = read.request(name)
    assert request is not None
    expires_at_s = less.pop("expires_at_s", None)
    wanted = GrantCapability(id="demo", wanted=name, **less)
    return grants.granted_less(request, wanted, expires_at_s=expires_at_s, by="admin")


def test_low_risk_is_granted_the_rest_waits_and_planned_ones_are_refused() -> None:
    widget = asked("ui.register_widget", optional=True, fallback="no figure")
    read = manifest(capabilities=[asked("api.emit_events"), scoped("public.orders"), asked("database.admin"), widget])
    found = {name: one.state for name, one in grants.first_decisions(read).items()}
    assert found == {
        "api.emit_events": GRANTED, "database.read": PENDING, "database.admin": PENDING, "ui.register_widget": REFUSED,
    }  # fmt: skip
    assert grants.missing(read, grants.first_decisions(read), NOW_S) == ["database.read", "database.admin"]
    assert grants.critical(found) == ["database.admin"]


def test_an_implied_capability_has_the_scope_of_the_one_that_implies_it() -> None:
    read = manifest(
        capabilities=[
            scoped("public.orders", rate_per_minute=50),
            scoped("public.prices", name="database.write", rate_per_minute=20),
        ]
    )
    found = grants.effective(read, granted_all(read), NOW_S)
    assert found["database.read"].scope["tables"] == ("public.orders", "public.prices")
    assert found["database.write"].scope["tables"] == ("public.prices",)
    assert found["database.read"].rate_per_minute == 50


def test_what_was_taken_back_does_not_come_in_through_another_capability() -> None:
    read = manifest(capabilities=[asked("database.schema"), scoped("public.orders")])
    decided = granted_all(read)
    decided["database.read"] = grants.revoked(decided["database.read"], "admin")
    implied = grants.effective(read, decided, NOW_S)["database.read"]
    assert implied.scope == dict.fromkeys(KINDS, ()), "named and empty, so nobody takes the manifest's word for it"


def test_limits_of_both_count_where_scopes_come_together() -> None:
    read = manifest(capabilities=[scoped("public.orders"), scoped("public.prices", name="database.write")])
    decided = granted_all(read)
    decided["database.write"] = replace(
        decided["database.write"], expires_at_s=NOW_S + 5, budget_per_day=3, hours="09:00-17:00"
    )
    both = grants.effective(read, decided, NOW_S)["database.read"]
    assert (both.expires_at_s, both.budget_per_day, both.hours) == (NOW_S + 5, 3, "09:00-17:00")
    later = grants.effective(read, decided, NOW_S + 5)
    assert set(later) == {"database.read"}
    assert later["database.read"].scope["tables"] == ("public.orders",)
    assert later["database.read"].expires_at_s is None, "what had no end has none again"
    decided["database.read"] = replace(decided["database.read"], hours="10:00-11:00")
    alone = grants.effective(read, decided, NOW_S)["database.read"]
    assert (alone.scope["tables"], alone.hours) == (("public.orders",), "10:00-11:00")


def test_grants_end_by_time() -> None:
    read = manifest(capabilities=[scoped("public.orders")])
    decided = {"database.read": narrowed(read, expires_at_s=NOW_S)}
    assert grants.effective(read, decided, NOW_S - 1)
    assert not grants.effective(read, decided, NOW_S)
    assert grants.expired(decided, NOW_S) == ["database.read"]
    assert grants.expired(decided, NOW_S - 1) == []
    assert grants.missing(read, decided, NOW_S) == ["database.read"]


@pytest.mark.parametrize(
    ("less", "why"),
    [
        ({"scope": {"tables": ["public.other"]}}, "does not ask for public.other"),
        ({"scope": {"tables": ["public.prices"]}}, "does not ask for public.prices"),
        ({"scope": {"hosts": ["example.com"]}}, "no scope hosts"),
        ({"scope": {"tables": ["nonsense"]}}, "nonsense"),
        ({"scope": {"tables": ["public.orders"] * 201}}, "at most 200"),
        ({"rate_per_minute": 101}, "asks for 100"),
        ({"hours": "9-17"}, "no hours"),
        ({"hours": "09:00-24:00"}, "no hours"),
        ({"hours": "0\u0669:00-17:00"}, "no hours"),
    ],
)
def test_a_grant_is_what_was_asked_for_or_less(less: dict[str, Any], why: str) -> None:
    read = manifest(capabilities=[scoped("public.orders", "public.prices(id)")])
    with pytest.raises(GrantRefused, match=why):
        narrowed(read, **less)


def test_less_than_asked_is_granted() -> None:
    read = manifest(capabilities=[scoped("public.orders", "public.prices")])
    found = narrowed(read, scope={"tables": ["public.orders(id)"]}, rate_per_minute=9, hours="09:00-17:30")
    assert (found.scope["tables"], found.rate_per_minute, found.state) == (["public.orders(id)"], 9, GRANTED)
    assert narrowed(read, scope={"tables": []}).scope["tables"] == []


def test_the_next_version_keeps_what_was_decided() -> None:
    before = manifest(capabilities=[scoped("public.orders", "public.prices"), asked("api.emit_events")])
    decided = {
        "database.read": narrowed(before, scope={"tables": ["public.prices"]}, rate_per_minute=9),
        "api.emit_events": grants.revoked(granted_all(before)["api.emit_events"], "admin"),
    }
    same = manifest(version="1.1.0", capabilities=[scoped("public.prices"), asked("api.emit_events")])
    found = grants.carried_decisions(before, decided, same)
    assert (found["database.read"].state, found["database.read"].scope["tables"]) == (GRANTED, ["public.prices"])
    assert (found["database.read"].rate_per_minute, found["api.emit_events"].state) == (9, REVOKED)
    more = manifest(version="1.1.0", capabilities=[scoped("public.orders", "public.secrets"), asked("api.emit_events")])
    assert grants.carried_decisions(before, decided, more)["database.read"].state == PENDING
    wider = manifest(version="1.1.0", capabilities=[asked("api.emit_events", rate_per_minute=5_000)])
    assert grants.carried_decisions(before, decided, wider)["api.emit_events"].state == PENDING, "it was taken back"


def test_what_a_capability_had_by_another_is_asked_for_when_it_is_asked_for_alone() -> None:
    before = manifest(capabilities=[scoped("public.orders", name="database.write")])
    after = manifest(version="1.1.0", capabilities=[scoped("public.orders")])
    assert grants.carried_decisions(before, granted_all(before), after)["database.read"].state == PENDING


# ---------------------------------------------------------------- whatever they say

_NAMES = st.sampled_from(sorted(EXTENSION_CAPABILITIES))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Anything that passes the schema of scopes; not everything that a real manifest must also be."""
    import msgspec

    found = []
    for name in draw(st.lists(_NAMES, unique=True, max_size=6)):
        request: dict[str, Any] = {"name": name, "reason": "because", "optional": draw(st.booleans())}
        if name.startswith("database."):
            request["tables"] = draw(st.lists(st.sampled_from(TABLES), unique=True, max_size=3))
        if name == "network.outbound":
            request["hosts"] = draw(st.lists(st.sampled_from(HOSTS), unique=True, max_size=2))
        if draw(st.booleans()):
            request["rate_per_minute"] = draw(st.integers(1, 2_000))
        found.append(request)
    return msgspec.convert({"id": "demo", "name": "Demo", "version": "1.0.0", "capabilities": found}, Manifest)


_STATES = st.sampled_from([GRANTED, PENDING, REVOKED, REFUSED])


@st.composite
def decided_manifests(draw: st.DrawFn) -> tuple[Manifest, dict[str, Decision]]:
    read = draw(manifests())
    found = {}
    for request in read.capabilities:
        ends = draw(st.none() | st.floats(0, 2 * NOW_S))
        hours = draw(st.sampled_from(["", "09:00-17:00", "10:00-11:00"]))
        whole = grants.granted(request, "admin")
        found[request.name] = replace(whole, state=draw(_STATES), expires_at_s=ends, hours=hours)
    return read, found


def _sources(name: str, decided: Mapping[str, Decision]) -> list[Decision]:
    return [
        one
        for one in decided.values()
        if one.state == GRANTED
        and (one.expires_at_s is None or one.expires_at_s > NOW_S)
        and one.capability not in PLANNED_CAPABILITIES
        and (one.capability == name or name in EXTENSION_CAPABILITIES[one.capability].implies)
    ]


@calm
@given(decided_manifests())
def test_nothing_counts_that_was_not_decided(both: tuple[Manifest, dict[str, Decision]]) -> None:
    read, decided = both
    found: Mapping[str, Grant] = grants.effective(read, decided, NOW_S)
    for name, grant in found.items():
        sources = _sources(name, decided)
        assert sources
        assert set(grant.scope) == set(KINDS)
        for kind in KINDS:
            allowed = [text for one in sources for text in one.scope[kind]]
            assert set(grant.scope[kind]) <= set(allowed)
        assert grant.rate_per_minute <= max(one.rate_per_minute for one in sources)
    assert {name for name in decided if _sources(name, decided)} <= set(found)


@calm
@given(decided_manifests(), manifests())
def test_no_version_gets_more_than_the_one_before_without_being_asked_about(
    both: tuple[Manifest, dict[str, Decision]], after: Manifest
) -> None:
    before, decided = both
    carried = grants.carried_decisions(before, decided, after)
    assert set(carried) == {request.name for request in after.capabilities}
    for name, one in carried.items():
        if one.state != GRANTED:
            continue
        old = decided.get(name)
        if EXTENSION_CAPABILITIES[name].risk is Risk.LOW and one.by == grants.PLANE:
            assert old is None or old.state != REVOKED
            continue
        assert old is not None
        assert old.state == GRANTED
        assert one.rate_per_minute <= old.rate_per_minute
        for kind in KINDS:
            assert all(any(covers(kind, wide, text) for wide in old.scope[kind]) for text in one.scope[kind])
