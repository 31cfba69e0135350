"""Attacks that nothing stops: without layers they succeed, so that a test of the sandbox cannot pass without it."""

from __future__ import annotations

import pytest
from tests.hostile.extensions.attacks import ATTACKS, INHERITED
from tests.hostile.extensions.sandbox_plays import IS_ROOT, play

LOCKED_ELSEWHERE = {
    # what a distribution may have closed to users on its own account
    "count_events", "handle_page_faults", "new_user_namespace", "clone_into_user_namespace", "trace_node",
    "read_other_memory", "write_other_memory", "steal_descriptor", "compare_with_node", "through_hard_link",
    "read_memory_of_node", "call_as_32_bits",
}  # fmt: skip


def test_as_a_user_every_attack_succeeds_that_needs_no_root() -> None:
    played = play("user", layers=[], watched=False)

    expected = {name for name, attack in ATTACKS.items() if not attack.needs_root} - LOCKED_ELSEWHERE
    kept_in = expected - played.those("leaked", "absent")
    assert not kept_in, played.told(kept_in)
    assert len(played.those("leaked")) >= 60


@pytest.mark.parametrize("profile", ["root"] if IS_ROOT else [])
def test_as_root_every_attack_succeeds(profile: str) -> None:
    played = play(profile, layers=[], watched=False)

    kept_in = set(ATTACKS) - played.those("leaked", "absent") - LOCKED_ELSEWHERE
    assert not kept_in, played.told(kept_in)
    assert len(played.those("leaked")) >= 80


def test_nothing_is_inherited_whatever_the_layers() -> None:
    """Exec with an empty environment and closed descriptors is not a layer: it cannot be left out."""
    played = play("user", attacks=list(INHERITED), layers=[])

    assert played.those("stopped") == set(INHERITED), played.told(set(INHERITED))
