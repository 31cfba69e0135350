"""Builds of `extension:dev` are always newer than what they were built from, and than one another; what is wrong is
said once.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.cli.extension_dev import _follow, next_version
from magmobo.contracts.errors import Unavailable
from magmobo.extensions.package.versions import parse_version

numbers = st.integers(0, 50)
builds = st.integers(1, 10**13)


@given(numbers, numbers, numbers, st.sampled_from(["", "-rc.1", "-alpha"]), builds)
def test_a_build_is_above_what_it_was_built_from_unless_that_is_named_above_dev(
    major: int, minor: int, patch: int, pre: str, build: int
) -> None:
    written = f"{major}.{minor}.{patch}{pre}"
    made = parse_version(next_version(written, build))
    if not pre or pre == "-alpha":
        assert made > parse_version(written)
    assert made.prerelease == f"dev.{build}"


@given(numbers, numbers, numbers, builds, builds)
def test_later_builds_are_above_earlier_ones(major: int, minor: int, patch: int, one: int, other: int) -> None:
    written = f"{major}.{minor}.{patch}"
    low, high = sorted((one, other))
    assert parse_version(next_version(written, low)) <= parse_version(next_version(written, high))


@given(numbers, numbers, numbers, builds)
def test_the_next_release_is_above_every_build(major: int, minor: int, patch: int, build: int) -> None:
    written = f"{major}.{minor}.{patch}"
    assert parse_version(next_version(written, build)) < parse_version(f"{major}.{minor}.{patch + 1}")


class Away:
    """A build whose node is away after the first look at its log."""

    def __init__(self, looks: int) -> None:
        self.brought, self._looks = 0, looks

    def state(self) -> object:
        return "unchanged"

    def bring(self) -> None:
        self.brought += 1

    def show_log(self) -> None:
        raise Unavailable("the node")

    def sleep(self, _duration_s: float) -> None:
        self._looks -= 1
        if not self._looks:
            raise KeyboardInterrupt


def test_a_node_that_is_away_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    build = Away(looks=5)
    with pytest.raises(KeyboardInterrupt):
        _follow(build, build.sleep)  # type: ignore[arg-type]
    assert capsys.readouterr().err.count("the node is not available") == 1
    assert build.brought == 1
