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
    # and a control group of version 1 for processors, whose share of real time is 0 unless given
    "become_real_time",
}  # fmt: skip


@pytest.mark.parametrize(("profile", "at_least"), [("user", 60), *([("root", 80)] if IS_ROOT else [])])
def test_every_attack_succeeds_that_its_user_may_make(profile: str, at_least: int) -> None:
    played = play(profile, layers=[], watched=False)

    possible = {name for name, attack in ATTACKS.items() if profile == "root" or not attack.needs_root}
    kept_in = possible - LOCKED_ELSEWHERE - played.those("leaked", "absent")
    assert not kept_in, played.told(kept_in)
    assert len(played.those("leaked")) >= at_least


def test_nothing_is_inherited_whatever_the_layers() -> None:
    """Exec with an empty environment and closed descriptors is not a layer: it cannot be left out."""
    played = play("user", attacks=list(INHERITED), layers=[])

    assert played.those("stopped") == set(INHERITED), played.told(set(INHERITED))
