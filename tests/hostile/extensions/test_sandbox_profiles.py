"""Every attack, on a node as it is run: by a plain user, by root, in containers."""

from __future__ import annotations

import pytest
from tests.hostile.extensions.attacks import ATTACKS, INHERITED
from tests.hostile.extensions.sandbox_plays import IS_ROOT, Played, play

OWN_WORLD = {"pids", "namespaces", "root"}
FIGURES = {
    # profile: the tier, and all that gets out in it
    "user": ("S3", set()),
    "container": ("S2", {"look_at_metadata"}),
    "root": ("S3", set()),
    "container-root": ("S2", {"nameless_files"}),
    "container-root-of-few": ("S2", {"look_at_metadata"}),
    "container-with-profile": ("S3", set()),
    "podman": ("S3", set()),
    "podman-root": ("S3", set()),
}


@pytest.fixture(scope="module", params=list(FIGURES) if IS_ROOT else ["user", "container", "podman"])
def played(request: pytest.FixtureRequest) -> tuple[str, Played]:
    """A profile, and how all attacks went in it."""
    return request.param, play(request.param)


def test_nothing_gets_out_that_the_tier_keeps_in(played: tuple[str, Played]) -> None:
    profile, result = played
    tier, expected = FIGURES[profile]

    assert result.tier == tier, result.missing
    assert (set(result.layers) >= OWN_WORLD) == (tier == "S3")
    assert len(result.results) > 90
    out = result.those("leaked")
    assert out == expected, result.told(out ^ expected)


def test_every_attack_was_made(played: tuple[str, Played]) -> None:
    _, result = played

    assert not result.those("broken", "failed"), result.told(result.those("broken", "failed"))


def test_the_node_hears_of_every_attempt_to_escape_and_of_no_other(played: tuple[str, Played]) -> None:
    """By the name of the call where no other filter is there; a library that tries a socket is told no and goes on."""
    profile, result = played

    for name, attack in {**ATTACKS, **INHERITED}.items():
        is_named = attack.escape != "?" and not profile.startswith(("container", "podman"))
        known = f"the system call {attack.escape}" if is_named else "a forbidden system call"
        assert result.results[name].escape == (f"it asked for {known}" if attack.escape else ""), name


@pytest.mark.parametrize("name", ["many_files", "hidden_files", "nameless_files"])
def test_a_data_folder_that_grows_too_large_ends_its_worker(name: str, played: tuple[str, Played]) -> None:
    profile, result = played

    if name not in FIGURES[profile][1]:
        assert "its data folder" in result.results[name].how


def test_without_landlock_the_rest_holds_as_well() -> None:
    """Tier S1, on a kernel that has no Landlock."""
    result = play("user", without=["landlock"])

    assert not result.those("leaked", "failed"), result.told(result.those("leaked", "failed"))
