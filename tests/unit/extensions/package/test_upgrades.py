"""What may take the place of an installed version, and what it asks for beyond it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.extensions.package.making import asked, calm, manifest

from magmobo.contracts.extensions import Risk, Widening
from magmobo.extensions.package.errors import UpgradeRefused
from magmobo.extensions.package.upgrades import Diff, capability_diff, check_upgrade


@dataclass
class Version:
    id: str = "demo"
    version: str = "1.2.0"
    signer: str = "a" * 32
    sha256: str = "0" * 64


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (Version(id="other", version="2.0.0"), "another extension"),
        (Version(version="2.0.0", signer="b" * 32), "signed with key"),
        (Version(version="1.1.9"), "older"),
        (Version(version="1.2.0-rc.1"), "older"),
        (Version(), "is installed"),
        (Version(sha256="1" * 64), "other content under the same version"),
        (Version(version="1.2.0+later"), "is installed"),
    ],
)
def test_what_is_no_upgrade(after: Version, why: str) -> None:
    with pytest.raises(UpgradeRefused, match=why):
        check_upgrade(Version(), after)


@pytest.mark.parametrize("version", ["1.2.1", "1.10.0", "2.0.0-rc.1"])
def test_a_newer_one_of_the_same_signer_is_fine(version: str) -> None:
    check_upgrade(Version(), Version(version=version))


def diff(before: list[dict[str, Any]], after: list[dict[str, Any]], **more: Any) -> Diff:
    return capability_diff(manifest(capabilities=before), manifest(capabilities=after, **more))


def test_the_same_manifest_asks_for_nothing_more() -> None:
    same = [asked("database.read", tables=["public.t"]), asked("network.outbound", hosts=["x.com"])]
    found = diff(same, same)
    assert not found.more
    assert found == Diff([], [], [], None)


def test_a_capability_that_is_added_is_named_with_what_it_implies_and_its_risk() -> None:
    found = diff([], [asked("database.write", tables=["public.t"])])
    assert found.added == ["database.read", "database.write"]
    assert found.risk is Risk.HIGH
    assert found.more == {"database.read", "database.write"}


def test_what_is_given_back_asks_for_nothing() -> None:
    found = diff([asked("database.write", tables=["public.t"])], [asked("database.read", tables=["public.t"])])
    assert (found.added, found.removed, found.more) == ([], ["database.write"], set())


@pytest.mark.parametrize(
    ("name", "kind", "before", "after", "what"),
    [
        ("database.read", "tables", ["public.t(a)"], ["public.t"], "public.t"),
        ("database.read", "tables", ["public.t"], ["public.t", "public.u"], "public.u"),
        ("network.outbound", "hosts", ["api.x.com"], ["*.x.com"], "*.x.com"),
        ("realtime.broadcast", "channels", ["a-1"], ["a-*"], "a-*"),
    ],
)
def test_a_wider_scope_is_more(name: str, kind: str, before: list[str], after: list[str], what: str) -> None:
    found = diff([asked(name, **{kind: before})], [asked(name, **{kind: after})])
    assert found.widened == [Widening(name, kind, what)]
    assert found.more == {name}
    assert not diff([asked(name, **{kind: after})], [asked(name, **{kind: before})]).more


def test_writing_what_it_only_read_is_more() -> None:
    before = [asked("database.read", tables=["public.t", "public.u"]), asked("database.write", tables=["public.t"])]
    found = diff(before, [asked("database.write", tables=["public.t", "public.u"])])
    assert found.widened == [Widening("database.write", "tables", "public.u")]


def test_a_higher_rate_is_more_and_a_lower_one_is_not() -> None:
    rates = [[asked("system.metrics", rate_per_minute=rate)] for rate in (10, 5000)]
    assert diff(rates[0], rates[1]).widened == [Widening("system.metrics", "rate_per_minute", "5000")]
    assert diff(rates[1], rates[0]).widened == []
    assert diff([asked("system.metrics")], rates[1]).more, "above what the catalogue gives"
    assert not diff(rates[1], [asked("system.metrics")]).more


def test_an_endpoint_that_opens_to_everybody_is_more() -> None:
    asks = [asked("api.register_endpoint")]
    endpoint = {"method": "GET", "path": "/x"}
    before = manifest(capabilities=asks, endpoints=[endpoint])
    after = manifest(capabilities=asks, endpoints=[endpoint | {"public": True}, {"method": "GET", "path": "/y"}])
    found = capability_diff(before, after)
    assert found.widened == [Widening("api.register_endpoint", "endpoints", "GET /x for everybody")]
    assert not capability_diff(after, before).widened


tables = st.lists(
    st.sampled_from(["public.t", "public.t(a)", "public.u", "public.u(a,b)", "app.v"]), min_size=1, max_size=4
)
asks = st.dictionaries(st.sampled_from(["database.read", "database.write"]), tables, max_size=2).map(
    lambda found: [asked(name, tables=sorted(set(scopes))) for name, scopes in found.items()]
)


@calm
@given(asks, asks, asks)
def test_two_upgrades_that_ask_for_nothing_more_ask_for_nothing_more_together(
    one: list[dict[str, Any]], two: list[dict[str, Any]], three: list[dict[str, Any]]
) -> None:
    if not diff(one, two).more and not diff(two, three).more:
        assert not diff(one, three).more
    assert not diff(one, one).more
