"""Which mount serves a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.listener.errors import MountReleased, RouteNotFound
from magmobo.components.listener.routing import MountTable


def table(*prefixes: str) -> MountTable[str]:
    mounts: MountTable[str] = MountTable()
    for prefix in prefixes:
        mounts.mount(prefix, prefix)
    return mounts


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/rest/v1/flights", "/rest/v1/"),
        ("/rest/v1/", "/rest/v1/"),
        ("/rest/v1", "/rest/v1/"),
        ("/rest/v2", "/rest/"),
        ("/rest", "/rest/"),
        ("/apps/1/events", "/apps/"),
    ],
)
def test_the_longest_prefix_wins(path: str, prefix: str) -> None:
    assert table("/rest/", "/rest/v1/", "/app/", "/apps/").find(path) == prefix


@pytest.mark.parametrize("path", ["/", "", "/res", "/restless", "/rest2/x", "rest/", "//rest/"])
def test_other_paths_are_nobodys(path: str) -> None:
    with pytest.raises(RouteNotFound):
        table("/rest/").find(path)


def test_the_root_is_one_path_and_not_the_rest() -> None:
    mounts = table("/", "/rest/")
    assert mounts.find("/") == "/"
    assert mounts.find("/rest") == "/rest/"
    for path in ("", "/anything", "//"):
        with pytest.raises(RouteNotFound):
            mounts.find(path)


def test_a_released_prefix_is_remembered_and_can_be_mounted_again() -> None:
    mounts = table("/rest/")
    first = mounts.mount("/a/", "old")
    first.release()
    first.release()
    with pytest.raises(MountReleased):
        mounts.find("/a/x")
    assert mounts.covers("/a/x")
    mounts.mount("/a/", "new")
    first.release()  # a late second release must not take the successor down
    assert mounts.find("/a/x") == "new"


@pytest.mark.parametrize("prefix", ["", "rest/", "/rest", "rest"])
def test_malformed_prefixes(prefix: str) -> None:
    with pytest.raises(ValueError, match="slash"):
        table().mount(prefix, "x")


def test_a_taken_prefix() -> None:
    with pytest.raises(ValueError, match="taken"):
        table("/rest/").mount("/rest/", "other")


segments = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3)
prefixes = segments.map(lambda parts: "".join(f"/{part}" for part in parts) + "/")


@given(st.sets(prefixes, max_size=5), prefixes, st.booleans())
def test_find_agrees_with_the_definition(mounted: set[str], path: str, bare: bool) -> None:
    asked = path[:-1] if bare else path
    fitting = [prefix for prefix in mounted if asked == prefix or (prefix != "/" and (asked + "/").startswith(prefix))]
    mounts = table(*mounted)
    if fitting:
        assert mounts.find(asked) == max(fitting, key=len)
    else:
        with pytest.raises(RouteNotFound):
            mounts.find(asked)
