"""Versions and ranges: the table of what each form means, and laws that hold for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.extensions.package.making import calm

from magmobo.extensions.package.errors import VersionInvalid
from magmobo.extensions.package.versions import MAX_RANGE_CHARS, parse_range, parse_version

numbers = st.integers(0, 12)
triples = st.tuples(numbers, numbers, numbers)
releases = triples.map(lambda triple: ".".join(map(str, triple)))
prereleases = st.tuples(releases, st.sampled_from(["alpha", "beta.2", "rc.1", "0"])).map("-".join)
versions = releases | prereleases


def allows(range_: str, version: str) -> bool:
    return parse_range(range_).allows(parse_version(version))


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        ("", "0.0.1 9.9.9", "1.0.0-rc.1"),
        ("*", "0.0.1 9.9.9", "1.0.0-rc.1"),
        ("1", "1.0.0 1.99.0", "0.9.9 2.0.0 2.0.0-rc.1"),
        ("1.x", "1.0.0 1.99.0", "0.9.9 2.0.0"),
        ("1.2", "1.2.0 1.2.9", "1.1.9 1.3.0"),
        ("=1.2.*", "1.2.0 1.2.9", "1.1.9 1.3.0"),
        ("1.2.3", "1.2.3 1.2.3+build.7", "1.2.4 1.2.2 1.2.3-rc.1"),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 2.0.0-alpha"),
        ("^0.2.3", "0.2.3 0.2.9", "0.2.2 0.3.0 1.0.0"),
        ("^0.0.3", "0.0.3", "0.0.2 0.0.4"),
        ("^0", "0.0.0 0.9.9", "1.0.0"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^1", "1.0.0 1.9.9", "2.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.9", "2.0.0"),
        (">1.2", "1.3.0 2.0.0", "1.2.9 1.2.0 1.3.0-rc.1"),
        (">1.2.3", "1.2.4", "1.2.3 1.2.2"),
        ("<=1.2", "1.2.9 0.1.0", "1.3.0"),
        ("<=1.2.3", "1.2.3 1.2.0", "1.2.4"),
        ("<2", "1.9.9", "2.0.0 2.0.0-rc.1"),
        ("<*", "", "0.0.0 1.0.0"),
        (">=*", "0.0.0 9.0.0", ""),
        (">=1.2 <2, <1.8", "1.2.0 1.7.9", "1.8.0 2.0.0"),
        ("1.x || ^3.1", "1.5.0 3.1.0 3.9.0", "2.0.0 3.0.9 4.0.0"),
        (">=1.2.3-rc.1", "1.2.3-rc.1 1.2.3-rc.2 1.2.3 2.0.0", "1.2.3-beta 1.2.4-rc.1"),
        (">= 1.2", "1.2.0", "1.1.0"),
    ],
)
def test_what_a_range_means(range_: str, inside: str, outside: str) -> None:
    assert [one for one in inside.split() if not allows(range_, one)] == []
    assert [one for one in outside.split() if allows(range_, one)] == []


@pytest.mark.parametrize(
    "range_",
    [
        "^",
        "a",
        "1.2.3.4",
        "1..2",
        "*.1",
        "1.*.3",
        "01",
        "^1 ||",
        "|| 1",
        "||",
        ">=1<2",
        "1,,2",
        "=>1",
        "1.2-rc",
        "1\x002",
        "1.2.3-",
        ">=1.2.3-01",
        "^" * 50,
        "1 " * MAX_RANGE_CHARS,
        "１",
    ],
)
def test_what_is_no_range(range_: str) -> None:
    with pytest.raises(VersionInvalid):
        parse_range(range_)


@pytest.mark.parametrize(
    "version", ["1", "1.2", "v1.2.3", "1.2.3\n", "01.2.3", "1.2.3-01", "1.2.3-", "１.2.3", "", "1.2.3-" + "a" * 60]
)
def test_what_is_no_version(version: str) -> None:
    with pytest.raises(VersionInvalid):
        parse_version(version)


@calm
@given(versions, versions)
def test_comparisons_are_those_of_semantic_versions(bound: str, version: str) -> None:
    held = {
        op: parse_range(op + bound).allows(parse_version(version), prereleases=True)
        for op in ("<", "<=", ">", ">=", "=")
    }
    order = parse_version(version).compare(parse_version(bound))
    assert held == {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0, "=": order == 0}


@calm
@given(releases, releases)
def test_caret_and_tilde_never_leave_their_line(base: str, version: str) -> None:
    low, other = parse_version(base), parse_version(version)
    left = next((place for place, number in enumerate(low.to_tuple()[:3]) if number), 2)
    same_line = other.to_tuple()[: left + 1] == low.to_tuple()[: left + 1]
    assert allows(f"^{base}", version) == (same_line and other >= low)
    assert allows(f"~{base}", version) == (other.to_tuple()[:2] == low.to_tuple()[:2] and other >= low)


@calm
@given(st.lists(st.sampled_from(["^1.2", "~3", ">=2", "<4.1", "1.x", "0.2.3"]), min_size=2, max_size=4), releases)
def test_or_is_any_and_and_is_all(parts: list[str], version: str) -> None:
    each = [allows(part, version) for part in parts]
    assert allows(" || ".join(parts), version) == any(each)
    assert allows(" ".join(parts), version) == allows(", ".join(parts), version) == all(each)


@calm
@given(st.text(alphabet="0123456789.^~<>=*x|,- arc", max_size=MAX_RANGE_CHARS + 5))
def test_any_text_is_a_range_or_refused(range_: str) -> None:
    try:
        parsed = parse_range(range_)
    except VersionInvalid:
        return
    assert parsed.allows(parse_version("1.2.3")) in (True, False)
